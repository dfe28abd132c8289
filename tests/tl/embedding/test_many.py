"""Embedding many slides: here, in processes, on a cluster; and only what is missing."""

import copy
import logging
import os
import shutil
import signal
import time
import warnings
from dataclasses import replace

import anndata as ad
import dask
import numpy as np
import pytest

import sagefm
from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp import Vocabulary, simulate
from sagefm.pretrain.corpus import build
from sagefm.tl import embed_many

# Run by every worker as it starts, for workers are out of reach of monkeypatch.
SPOILED = """
import os, signal
import sagefm.tl.embedding._jobs as jobs
whole = getattr(jobs.read, "whole", jobs.read)
class OddError(Exception):
    def __init__(self, one, two):
        super().__init__("odd")
def read(path, **options):
    if path.name == "deadly.h5ad":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "odd.h5ad":
        raise OddError(1, 2)
    if path.name == "deep.h5ad":
        return read(path, **options)
    return whole(path, **options)
read.whole = whole
jobs.read = read
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, slide, model):
    """Three slides, of which one has its counts in a layer, and a model."""
    folder = tmp_path_factory.mktemp("slides")
    slide.write_h5ad(folder / "a.h5ad")
    simulate(150, seed=8, patient="p2", slide="b").write_h5ad(folder / "b.h5ad")
    layered = simulate(100, seed=9, patient="p3", slide="c")
    layered.layers["counts"] = layered.X.copy()
    layered.X = layered.X.log1p()
    layered.write_h5ad(folder / "c.h5ad")
    (folder / "broken.h5ad").write_bytes(b"no slide")
    model.save(folder / "m.safetensors")
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture
def notes():
    """What sagefm tells."""
    told = []

    class Listener(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    listener = Listener()
    logging.getLogger("sagefm").addHandler(listener)
    yield told
    logging.getLogger("sagefm").removeHandler(listener)


def into(out, *names):
    return {out / f"{name}.h5ad": f"{name}.h5ad" for name in names}


def states(out):
    return {path.name: path.stat().st_mtime_ns for path in sorted(out.iterdir())}


def assert_embedded(out, model):
    """Check the results of a, b and c: those of one slide at a time."""
    assert list(states(out)) == ["a.h5ad", "b.h5ad", "c.h5ad"]
    for name in "abc":
        slide = sagefm.read(f"{name}.h5ad")
        sagefm.tl.embed(slide, model)
        written = ad.read_h5ad(out / f"{name}.h5ad")
        np.testing.assert_allclose(written.obsm["X_sagefm"], slide.obsm["X_sagefm"], atol=1e-6)
        assert (written.X != slide.X).nnz == 0
        entry = written.uns["sagefm"]["embed"]
        assert entry.pop("source")
        assert entry == slide.uns["sagefm"]["embed"]


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_the_same_wherever_it_is_done(where, request, tmp_path, model, notes):
    if where == "here":
        how = {"workers": 1}
    else:
        how = {"scheduler": request.getfixturevalue("cluster").scheduler_address}
    lines = []
    slides = into(tmp_path, "a", "broken", "b", "c")
    done = embed_many(slides, "m.safetensors", progress=lines.append, **how)

    # What reading told is told, though another process read.
    assert any(note.startswith("c.h5ad: X now has the counts") for note in notes)
    assert_embedded(tmp_path, model)
    assert str(done) == "3 embedded, 0 already there, 1 failed"
    assert set(done.finished) == {tmp_path / f"{name}.h5ad" for name in "abc"}
    assert "200 spots × 20; matched 476 of 478" in done.finished[tmp_path / "a.h5ad"]
    (reason,) = done.failed.values()
    assert reason.startswith("broken.h5ad: ")
    assert str(done.errors[tmp_path / "broken.h5ad"]) == reason
    assert f"failed: {reason}" in lines
    assert f"{tmp_path / 'b.h5ad'}: {done.finished[tmp_path / 'b.h5ad']}" in lines
    assert len(lines) == 4


def test_processes_and_one_that_dies(tmp_path, model, capfd):
    slides = into(tmp_path, "deadly", "a", "odd", "b", "deep", "c")
    with dask.config.set({"distributed.worker.preload": [SPOILED]}):
        done = embed_many(slides, "m.safetensors", workers=2)
    died, odd, deep = (done.failed[tmp_path / f"{name}.h5ad"] for name in ("deadly", "odd", "deep"))
    assert died.startswith("deadly.h5ad: its process died")
    assert "fewer workers" in died
    assert odd == "odd.h5ad: RuntimeError: OddError: odd"
    assert deep.startswith("deep.h5ad: RecursionError: maximum recursion depth")
    assert "in read" in done.errors[tmp_path / "odd.h5ad"].__notes__[0]
    assert not capfd.readouterr().err
    assert_embedded(tmp_path, model)


def test_one_worker_needs_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr("sagefm._workers._on_cluster", lambda *_: pytest.fail("a cluster"))
    assert embed_many(into(tmp_path, "a", "b"), "m.safetensors", workers=1).finished
    assert embed_many(into(tmp_path, "c"), "m.safetensors", workers=8).finished
    again = embed_many(into(tmp_path, "a", "b", "c"), "m.safetensors", workers=8)
    assert len(again.skipped) == 3  # nothing is started for nothing


@pytest.fixture(scope="module")
def embedded(folder, tmp_path_factory):
    """Results, to be copied."""
    out = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        embed_many(into(out, "a", "b"), "m.safetensors", workers=1)
    return out


@pytest.fixture
def out(embedded, tmp_path):
    """Results of a and b, an hour old."""
    for path in embedded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
        os.utime(tmp_path / path.name, (time.time() - 3600,) * 2)
    return tmp_path


def redone(out, model="m.safetensors", **options):
    """Embed a and b again; name what was done."""
    before = states(out)
    done = embed_many(into(out, "a", "b"), model, workers=1, **options)
    assert not done.failed
    after = states(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {path.name for path in done.finished}
    assert set(after) - changed == {path.name for path in done.skipped}
    return "".join(sorted(name[0] for name in changed))


def test_what_is_there_is_left_alone(out):
    assert redone(out) == ""
    (out / "b.h5ad").unlink()
    assert redone(out) == "b"
    assert redone(out) == ""
    assert redone(out, again=True) == "ab"


def test_further_steps_on_a_result_do_not_undo_it(out):
    slide = sagefm.read(out / "a.h5ad")
    sagefm.tl.domains(slide, 3)
    slide.write_h5ad(out / "a.h5ad")
    assert redone(out) == ""


def test_another_model_or_other_options_do_it_again(out, vocabulary, model, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("models")
    model.save(elsewhere / "copy.safetensors")
    assert redone(out, elsewhere / "copy.safetensors") == ""
    config = Config(widths=(24, 16, 16, 16, 20))
    SageFM.new(vocabulary, config, seed=6).save(elsewhere / "other.safetensors")
    assert redone(out, elsewhere / "other.safetensors") == "ab"
    assert redone(out) == "ab"
    assert redone(out, layer="X") == "ab"


def test_the_fingerprint_is_of_weights_vocabulary_and_config(model):
    def fingerprint(vocabulary=model.vocabulary, config=model.config, network=model.network):
        return SageFM(network, vocabulary, config, {"not": "this"}).fingerprint

    assert fingerprint() == model.fingerprint
    symbols = model.vocabulary.symbols
    weights = copy.deepcopy(model.network)
    weights.first_bias.data[0] += 1e-3
    others = {
        fingerprint(),
        fingerprint(vocabulary=Vocabulary(symbols[::-1])),
        fingerprint(config=replace(model.config, n_neighbors=7)),
        fingerprint(network=weights),
    }
    assert len(others) == 4


def test_a_changed_source_does_it_again(out, folder):
    state = (folder / "a.h5ad").stat()
    os.utime(folder / "a.h5ad", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert redone(out) == "a"
    assert redone(out) == ""


def test_an_empty_file_is_replaced(out):
    (out / "a.h5ad").write_bytes(b"")
    assert redone(out) == "a"


@pytest.mark.parametrize("harm", ["half", "text", "unembedded"])
def test_what_may_be_of_somebody_else_is_replaced_only_on_demand(out, slide, harm):
    content = (out / "a.h5ad").read_bytes()
    if harm == "unembedded":
        slide.write_h5ad(out / "a.h5ad")
    else:
        contents = {"half": content[: len(content) // 2], "text": b"x" * 5000}
        (out / "a.h5ad").write_bytes(contents[harm])
    before = (out / "a.h5ad").read_bytes()
    done = embed_many(into(out, "a", "b"), "m.safetensors", workers=1)
    assert done.skipped == [out / "b.h5ad"]
    assert "was not made from" in done.failed[out / "a.h5ad"]
    assert "--overwrite" in done.failed[out / "a.h5ad"]
    assert (out / "a.h5ad").read_bytes() == before
    assert redone(out, overwrite=True) == "a"


def write_zarr(slide, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the version of zarr that anndata writes
        slide.write_zarr(path)


def test_folders_are_known_by_what_is_in_them(tmp_path, slide):
    write_zarr(slide, tmp_path / "a.zarr")
    slides, out = {tmp_path / "out" / "a.h5ad": tmp_path / "a.zarr"}, tmp_path / "out"
    assert embed_many(slides, "m.safetensors").finished
    assert embed_many(slides, "m.safetensors").skipped
    os.utime(next(path for path in (tmp_path / "a.zarr" / "X").rglob("*") if path.is_file()))
    assert embed_many(slides, "m.safetensors").finished
    assert len(list(out.iterdir())) == 1


def test_a_result_in_the_folder_of_its_slide_is_no_change_of_it(tmp_path, slide):
    write_zarr(slide, tmp_path / "a.zarr")
    slides = {tmp_path / "a.zarr" / "embedded.h5ad": tmp_path / "a.zarr"}
    assert embed_many(slides, "m.safetensors").finished
    assert embed_many(slides, "m.safetensors").skipped


def test_a_sample_in_a_folder_of_several(tmp_path, monkeypatch):
    read = sagefm.read
    monkeypatch.setattr("sagefm.tl.embedding._jobs.read", lambda *_, **__: read("a.h5ad"))
    slides = {}
    for prefix in ("GSM1", "GSM2"):
        (tmp_path / f"{prefix}_matrix.mtx").write_text("a matrix")
        slides[tmp_path / f"{prefix}.h5ad"] = tmp_path / prefix
    assert len(embed_many(slides, "m.safetensors", workers=1).finished) == 2
    assert len(embed_many(slides, "m.safetensors", workers=1).skipped) == 2
    (tmp_path / "GSM1_matrix.mtx").write_text("another matrix")
    done = embed_many(slides, "m.safetensors", workers=1)
    assert list(done.finished) == [tmp_path / "GSM1.h5ad"]


def test_in_place(tmp_path, folder):
    for name in ("a", "c"):
        (tmp_path / f"{name}.h5ad").write_bytes((folder / f"{name}.h5ad").read_bytes())
    before = (tmp_path / "c.h5ad").read_bytes()
    slides = {tmp_path / "a.h5ad": tmp_path / "a.h5ad", tmp_path / "c.h5ad": tmp_path / "c.h5ad"}
    for _ in range(2):
        done = embed_many(slides, "m.safetensors", workers=1)
        assert list(done.finished) == [tmp_path / "a.h5ad"]
        assert "c.h5ad: is not overwritten" in done.failed[tmp_path / "c.h5ad"]
        assert (tmp_path / "c.h5ad").read_bytes() == before
    assert "X_sagefm" in ad.read_h5ad(tmp_path / "a.h5ad").obsm


def test_an_unexpected_error_stops_one_slide(tmp_path, monkeypatch):
    embed_with = sagefm.tl.embedding._many.embed_with

    def embed(model, aligned, *rest):
        if len(aligned.neighbors) == 200:
            raise RuntimeError("the\nreason")
        return embed_with(model, aligned, *rest)

    monkeypatch.setattr("sagefm.tl.embedding._many.embed_with", embed)
    done = embed_many(into(tmp_path, "a", "b"), "m.safetensors", workers=1)
    assert done.failed == {tmp_path / "a.h5ad": "a.h5ad: RuntimeError: the reason"}
    assert isinstance(done.errors[tmp_path / "a.h5ad"], RuntimeError)
    assert list(done.finished) == [tmp_path / "b.h5ad"]


def test_a_worker_of_a_cluster_is_killed_and_another_takes_over(tmp_path, cluster):
    victim = next(iter(cluster.scheduler_info["workers"].values()))
    killed = []

    def kill(_):
        if not killed:
            killed.append(os.kill(cluster_pids(cluster)[victim["id"]], signal.SIGKILL))

    slides = into(tmp_path, "a", "b", "c")
    done = embed_many(slides, "m.safetensors", scheduler=cluster.scheduler_address, progress=kill)
    assert killed
    assert len(done.finished) == 3


def cluster_pids(cluster):
    return {name: nanny.pid for name, nanny in cluster.workers.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; give 1 or more"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:9"}, "leave them out with a scheduler"),
        ({"device": "nonsense"}, "is not available on this machine"),
        ({"scheduler": "127.0.0.1"}, "no dask scheduler answers"),
        ({"scheduler": "tcp://127.0.0.1:9"}, "tcp://127.0.0.1:9: no dask scheduler answers"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("sagefm._workers._TIMEOUT", 0.5)
    with pytest.raises(InputError, match=message):
        embed_many(into(tmp_path, "a", "b"), "m.safetensors", **options)
    assert not states(tmp_path)


def test_results_never_replace_other_slides(tmp_path):
    twice = {tmp_path / "x.h5ad": "a.h5ad", tmp_path / "y" / ".." / "x.h5ad": "b.h5ad"}
    with pytest.raises(InputError, match="two slides would be written to one file"):
        embed_many(twice, "m.safetensors")
    with pytest.raises(InputError, match=r"b\.h5ad: another slide would be written there"):
        embed_many({"b.h5ad": "a.h5ad", tmp_path / "b.h5ad": "b.h5ad"}, "m.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        embed_many({tmp_path: "a.h5ad"}, "m.safetensors")
    with pytest.raises(InputError, match="no such file"):
        embed_many(into(tmp_path, "a"), "n.safetensors")


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus"
    build({name: folder / f"{name}.h5ad" for name in "ab"}, path)
    return path


def test_a_corpus(corpus, tmp_path, model):
    slides = {tmp_path / f"{name}.h5ad": (corpus, name) for name in ("a", "b", "x")}
    done = embed_many(slides, "m.safetensors", workers=1)
    assert done.failed[tmp_path / "x.h5ad"].startswith(f"x in {corpus}: has no slide 'x'")
    for name in "ab":
        written = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        alone = model.embed(sagefm.read(f"{name}.h5ad"))
        np.testing.assert_allclose(written.obsm["X_sagefm"], alone, atol=1e-5)
        assert written.uns["sagefm"]["corpus"]["slide"] == name
    assert len(embed_many(slides, "m.safetensors", workers=1).skipped) == 2
    with pytest.raises(InputError, match="need no layer"):
        embed_many(slides, "m.safetensors", layer="X")


def test_a_slide_that_was_replaced_in_its_corpus_is_embedded_again(corpus, tmp_path):
    copied = tmp_path / "corpus"
    shutil.copytree(corpus, copied)
    slides = {tmp_path / "out" / f"{name}.h5ad": (copied, name) for name in "ab"}
    assert len(embed_many(slides, "m.safetensors", workers=1).finished) == 2
    changed = sagefm.read("a.h5ad")
    changed.X.data[0] += 1
    changed.write_h5ad(tmp_path / "a.h5ad")
    build({"a": tmp_path / "a.h5ad"}, copied, overwrite=True)
    done = embed_many(slides, "m.safetensors", workers=1)
    assert [path.name for path in done.finished] == ["a.h5ad"]
    assert [path.name for path in done.skipped] == ["b.h5ad"]
