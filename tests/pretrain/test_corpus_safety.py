"""A corpus holds whole slides and nothing else, whatever happens on the way."""

import json
import operator
import os
import random
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from tests.pretrain.commands import Command

from sagefm import InputError
from sagefm._workers import each
from sagefm.pp.simulate import simulate
from sagefm.pretrain.corpus import Corpus, build, stored


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for i in range(6):
        slide = simulate(100, seed=i, patient=f"p{i}", slide=f"s{i}", genes=GENES)
        slide.write_h5ad(folder / f"s{i}.h5ad")
    return {f"s{i}": folder / f"s{i}.h5ad" for i in range(6)}


GENES = [f"GENE{i}" for i in range(400)]


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus") / "c"
    build(files, out)
    return out


@pytest.fixture
def corpus(built, tmp_path):
    """A corpus of its own for each test."""
    shutil.copytree(built, tmp_path / "c")
    return Corpus.open(tmp_path / "c")


def left_over(out):
    return [entry.name for entry in (out / "slides").iterdir() if entry.name.startswith(".")]


def whole_slides(out):
    return list((out / "slides").glob("[!.]*.zarr"))


def test_a_killed_build_leaves_whole_slides_and_goes_on(files, built, tmp_path):
    out = tmp_path / "c"
    delays = random.Random(0)
    ends = []
    for _ in range(3):
        running = Command(tmp_path, ["corpus", "build", *files.values(), "-o", out])
        running.until(lambda told=running.told: told.exists() and told.stat().st_size > 0)
        time.sleep(delays.uniform(0, 0.4))
        running.send(signal.SIGKILL)
        ends.append(running.end()[0])
        if whole_slides(out):
            assert Corpus.open(out).verify() == []
    assert ends[0] == -signal.SIGKILL
    done = Corpus.open(out).table.index.tolist() if whole_slides(out) else []
    last = build(files, out)
    assert sorted(last.skipped) == done
    assert sorted(last.added + last.skipped) == list(files)
    assert Corpus.open(out).table.equals(Corpus.open(built).table)
    assert left_over(out) == []


def test_what_a_killed_run_was_replacing_comes_back(corpus, files):
    slides = corpus.path / "slides"
    (slides / "s0.zarr").rename(slides / ".s0.12ab.old.zarr")
    (slides / ".s1.34cd.new.zarr").mkdir()
    shutil.copytree(slides / "s2.zarr", slides / ".s2.56ef.old.zarr")
    assert len(build(files, corpus.path).skipped) == 6
    assert left_over(corpus.path) == []
    assert Corpus.open(corpus.path).table.equals(corpus.table)


def test_two_builds_at_once(corpus, files):
    fcntl = pytest.importorskip("fcntl")
    with (corpus.path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711")
        other.flush()
        with pytest.raises(InputError, match="process 4711 is working in it; wait for it"):
            build(files, corpus.path)
    assert len(build(files, corpus.path).skipped) == 6


@pytest.mark.parametrize(
    "file", ["X/data/c/0", "X/indices/c/0", "X/indptr/c/0", "obsm/neighbors/c/0/0"]
)
@pytest.mark.parametrize("where", [0.3, -9])
def test_a_flipped_byte_is_found(corpus, file, where):
    path = corpus.path / "slides" / "s3.zarr" / file
    content = bytearray(path.read_bytes())
    content[where if where < 0 else int(where * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"slide 's3' is damaged .*checksum.*add it again: sagefm"):
        corpus.read("s3", 0, 100)
    assert corpus.read("s2", 0, 100).neighbors.shape == (100, 15)
    (fault,) = corpus.verify()
    assert "slide 's3'" in fault


@pytest.mark.parametrize("file", ["obs/_index/c/0", "var/_index/c/0", "obsm/spatial/c/0/0"])
def test_what_training_does_not_read_is_verified_too(corpus, file):
    path = corpus.path / "slides" / "s3.zarr" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (fault,) = corpus.verify()
    assert "slide 's3' is damaged" in fault
    path.unlink()
    (fault,) = corpus.verify()
    assert "slide 's3' is damaged" in fault
    if not file.startswith("var"):
        with pytest.raises(InputError, match="slide 's3' is damaged"):
            corpus.slide("s3")


def damaged(path, damage):
    """Damage a file in one of the ways that disks and users do."""
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "digit":  # a number in a description
        place = next((i for i, byte in enumerate(content) if chr(byte) in "12345678"), 0)
        content[place] += 1
        path.write_bytes(content)
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("damage", ["missing", "cut", "digit", "flipped"])
def test_damage_of_any_file_is_found_and_never_read(corpus, damage):
    """What verify does not report, or what is read in spite of it, is what was written."""
    place = corpus.path / "slides" / "s3.zarr"
    for other in set(place.parent.iterdir()) - {place}:  # for speed
        shutil.rmtree(other)
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    expected = corpus.slide("s3"), corpus.read("s3", 0, 100)
    assert len(whole) > 25
    for path, content in whole.items():
        damaged(path, damage)
        try:
            faults = Corpus.open(corpus.path).verify()
        except InputError as error:  # of the facts
            faults = [str(error)]
        (fault,) = faults
        assert re.search(r"slide 's3' is damaged .*; add it again: sagefm", fault), path
        assert "\n" not in fault
        try:
            read = Corpus.open(corpus.path)
            slide, tile = read.slide("s3"), read.read("s3", 0, 100)
        except InputError:
            pass
        else:
            assert (slide.X != expected[0].X).nnz == 0
            assert slide.obs.equals(expected[0].obs)
            assert slide.var.equals(expected[0].var)
            assert (tile.counts != expected[1].counts).nnz == 0
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert Corpus.open(corpus.path).verify() == []


def test_what_does_not_belong_to_a_slide(corpus):
    (corpus.path / "slides" / "notes.txt").write_text("mine")
    (corpus.path / "slides" / "s3.zarr" / ".DS_Store").write_text("of a file browser")
    assert corpus.verify() == []
    (corpus.path / "slides" / "s3.zarr" / "X" / "notes.txt").write_text("mine")
    (fault,) = corpus.verify()
    assert "slide 's3' is damaged (X/notes.txt is no file of it)" in fault


def as_before(corpus):
    """Remove what earlier versions did not write: the checksums of files, and datasets."""
    for place in (corpus.path / "slides").iterdir():
        about = json.loads((place / "zarr.json").read_text())
        record = about["attributes"]["sagefm"]
        del record["files"], record["seal"], record["facts"]["dataset"]
        record["format"] = 1
        record["seal"] = stored._seal(record)
        (place / "zarr.json").write_text(json.dumps(about))
    content = json.loads((corpus.path / "corpus.json").read_text())
    del content["seal"]
    (corpus.path / "corpus.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "file",
    [
        "X/zarr.json", "X/indices/zarr.json", "obs/zarr.json", "var/zarr.json", "obs/_index/c/0",
        "uns/zarr.json", "uns/sagefm/corpus/patient/c", "obsm/zarr.json", "obs/row/c/0",
    ],
)  # fmt: skip
def test_a_corpus_of_an_earlier_version_is_verified_too(corpus, file):
    assert corpus.without_checksums() == []
    as_before(corpus)
    assert Corpus.open(corpus.path).verify() == []
    assert set(Corpus.open(corpus.path).table["dataset"]) == {""}
    assert corpus.without_checksums() == [f"s{i}" for i in range(6)]
    damaged(corpus.path / "slides" / "s3.zarr" / file, "cut")
    (fault,) = Corpus.open(corpus.path).verify()
    assert "slide 's3' is damaged" in fault


@pytest.mark.parametrize(
    ("old", "new"),
    [('"GENE7"', '"GENE7B"'), ('"n_neighbors": 15', '"n_neighbors": 14'), ('"seal"', '"steal"'),
     ('"n_neighbors": 15', '"n_neighbors": true'), ('"GENE7"', "7")],
)  # fmt: skip
def test_a_changed_header_is_found(corpus, old, new):
    path = corpus.path / "corpus.json"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(InputError, match=r"corpus\.json: is damaged; put back a copy"):
        Corpus.open(corpus.path)


def test_a_slide_of_a_later_version(corpus):
    path = corpus.path / "slides" / "s3.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(InputError, match=r"s3\.zarr: is of sagefm '.*'.* upgrade sagefm"):
        Corpus.open(corpus.path)


def test_a_corpus_without_slides(corpus):
    for place in (corpus.path / "slides").iterdir():
        shutil.rmtree(place)
    with pytest.raises(InputError, match=r"c: has no slides; add some with sagefm corpus build"):
        Corpus.open(corpus.path)
    (corpus.path / "slides").rmdir()
    with pytest.raises(InputError, match=r"slides: cannot be read .* put back a copy"):
        Corpus.open(corpus.path)


def test_a_folder_that_nobody_may_enter(corpus, monkeypatch):
    iterdir = Path.iterdir

    def refused(self):
        if self.name == "slides":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(InputError, match=r"slides: cannot be read \(Permission denied\); check"):
        Corpus.open(corpus.path)


def test_genes_beyond_the_vocabulary_are_damage(corpus):
    """Nothing is computed with positions that the file alone vouches for."""
    as_before(corpus)
    content = json.loads((corpus.path / "corpus.json").read_text())
    content["symbols"], content["ensembl"] = content["symbols"][:300], content["ensembl"][:300]
    (corpus.path / "corpus.json").write_text(json.dumps(content))
    short = Corpus.open(corpus.path)
    for read in (lambda: short.slide("s1"), lambda: short.read("s1", 0, 50)):
        with pytest.raises(InputError, match="slide 's1' is damaged"):
            read()
    assert len(short.verify()) == 6


def test_changed_facts_are_found(corpus):
    path = corpus.path / "slides" / "s3.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"p3"', '"p4"'))
    with pytest.raises(InputError, match=r"slide 's3' is damaged \(its facts fail their checksum"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "described wrongly"])
def test_a_shard_that_is_not_whole(corpus, damage):
    path = corpus.path / "slides" / "s1.zarr" / "X" / "data" / "c" / "0"
    if damage == "missing":
        path.unlink()
    elif damage == "described wrongly":
        about = path.parents[1] / "zarr.json"
        about.write_text(about.read_text().replace("uint16", "uint17"))
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -20])
    with pytest.raises(InputError, match="slide 's1' is damaged"):
        corpus.read("s1", 0, 100)


def test_a_slide_that_vanished_or_was_replaced(corpus, files):
    corpus.read("s1", 0, 9)
    shutil.rmtree(corpus.path / "slides" / "s1.zarr")
    with pytest.raises(InputError, match=r"slide 's1' is gone; add it again: sagefm corpus build"):
        corpus.read("s1", 0, 9)
    corpus.read("s2", 0, 9)
    build({"s2": files["s4"]}, corpus.path, overwrite=True)
    with pytest.raises(InputError, match="slide 's2' was replaced after the corpus was opened"):
        corpus.read("s2", 0, 9)
    opened = Corpus.open(corpus.path)
    assert "s1" not in opened.table.index
    assert opened.table.at["s2", "checksum"] == opened.table.at["s4", "checksum"]


def test_a_damaged_slide_is_mended_by_overwriting(corpus, files):
    (corpus.path / "slides" / "s1.zarr" / "zarr.json").write_text("{")
    built = build({"s1": files["s1"]}, corpus.path)
    assert "is there already, but damaged" in built.failed["s1"]
    assert build({"s1": files["s1"]}, corpus.path, overwrite=True).added == ["s1"]
    assert Corpus.open(corpus.path).table.equals(corpus.table)


def test_a_source_that_changed_is_no_silent_replacement(corpus, files, tmp_path):
    source = tmp_path / "s1.h5ad"
    shutil.copy(files["s1"], source)  # another time, the same content
    assert build({"s1": source}, corpus.path).skipped == ["s1"]
    shutil.copy(files["s2"], source)
    built = build({"s1": source}, corpus.path)
    assert "other content; add --overwrite" in built.failed["s1"]
    assert Corpus.open(corpus.path).table.equals(corpus.table)


def test_other_facts_are_no_silent_replacement(corpus, files):
    facts = pd.DataFrame({"slide": ["s1", "s2"], "patient": ["p1", "somebody else"]})
    built = build(files, corpus.path, facts=facts)
    assert len(built.skipped) == 5
    assert "its patient there is 'p2', and now 'somebody else'" in built.failed["s2"]
    build({"s2": files["s2"]}, corpus.path, facts=facts, overwrite=True)
    assert Corpus.open(corpus.path).table.at["s2", "patient"] == "somebody else"


def test_a_bad_slide_is_left_out_and_told(files, tmp_path, caplog):
    few = simulate(100, seed=0, genes=GENES)[:9].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    (tmp_path / "no.h5ad").write_text("nothing")
    bad = {"few": tmp_path / "few.h5ad", "no": tmp_path / "no.h5ad", "gone": tmp_path / "gone.h5ad"}
    built = build({**bad, "s0": files["s0"]}, tmp_path / "c")
    assert built.added == ["s0"]
    assert built.failed.keys() == bad.keys()
    assert "9 spots, but a neighborhood needs 15" in built.failed["few"]
    assert built.failed["gone"] == "does not exist; check the path"
    assert "gone: left out: does not exist" in caplog.text
    assert Corpus.open(tmp_path / "c").table.index.tolist() == ["s0"]


def test_nothing_is_left_of_a_corpus_without_slides(files, tmp_path):
    (tmp_path / "no.h5ad").write_text("nothing")
    with pytest.raises(InputError, match="no slide can be read; the first: no: "):
        build({"no": tmp_path / "no.h5ad"}, tmp_path / "c")
    (tmp_path / "genes.txt").write_text("\n".join(GENES))
    built = build({"no": tmp_path / "no.h5ad"}, tmp_path / "c", genes=tmp_path / "genes.txt")
    assert list(built.failed) == ["no"]
    assert not (tmp_path / "c").exists()


def test_a_full_disk_stops_the_build_and_nothing_is_lost(files, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        out = disk / "c"
        build({"s0": files["s0"]}, out)
        with (disk / "other").open("wb") as other:
            other.write(bytes(shutil.disk_usage(disk).free - 100_000))
        with pytest.raises(InputError, match=r"/c: cannot be written \(No space left on device\)"):
            build(files, out)
        assert left_over(out) == []
        there = Corpus.open(out).table.index.tolist()
        assert "s0" in there
        assert len(there) < 6
        assert Corpus.open(out).verify() == []
        (disk / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        assert len(build(files, out).added) == 6 - len(there)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_folders_that_are_no_corpus(files, built, tmp_path):
    with pytest.raises(InputError, match="is no corpus"):
        Corpus.open(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other things \(thesis.txt\) and is no corpus"):
        build(files, tmp_path)
    with pytest.raises(InputError, match="no slides"):
        build({}, tmp_path / "c")
    twice = pd.DataFrame({"slide": ["s0", "s0"]})
    with pytest.raises(InputError, match="the table of slides has two rows of slide 's0'"):
        build(files, tmp_path / "c", facts=twice)
    with pytest.raises(InputError, match="'a/b' and 'a-b' would share a folder"):
        build({"a-b": files["s0"], "a/b": files["s1"]}, tmp_path / "c")
    later = tmp_path / "later"
    shutil.copytree(built, later)
    content = json.loads((later / "corpus.json").read_text())
    (later / "corpus.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(InputError, match="upgrade sagefm"):
        Corpus.open(later)
    (later / "corpus.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        build(files, later)


def test_a_process_that_dies_is_a_failed_job():
    jobs = [partial(os._exit, 1), partial(int, "5")]
    results = dict(each(operator.call, jobs, workers=2))
    assert results[jobs[1]] == 5
    assert "most likely for lack of memory" in str(results[jobs[0]])
