"""`sagefm corpus`, as a user types it."""

import pandas as pd
import pytest

from sagefm.pp.simulate import simulate
from sagefm.pretrain.corpus import Corpus


@pytest.fixture
def files(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        simulate(80, seed=seed, patient=f"p{seed}").write_h5ad(tmp_path / f"{name}.h5ad")


def one_line(err):
    """The error line; notes may stand before it."""
    (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
    return line


def test_build_then_info(run, files):
    status, out, err = run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "c", "--genes", 100)
    assert status == 0
    assert not err
    lines = out.splitlines()
    assert lines[0] == "a: genes counted"
    assert lines[2].startswith("a: 80 spots; matched 100 of 100")
    assert lines[-1].startswith("c: 2 slides added, 0 there already; 160 spots, ")
    assert "bytes per nonzero; " in lines[-1]
    assert lines[-1].endswith(" spots/s")

    status, out, _ = run("corpus", "info", "c", "--verify")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["slide", "patient", "checksum", "spots", "genes", "depth"]
    assert lines[1][:2] == ["a", "p1"]
    assert lines[4:6] == [["organ", "slides", "patients", "spots"], ["unknown", "2", "2", "160"]]
    assert "c: 2 slides of 2 patients, 160 spots, " in out
    assert "c: every slide is intact" in out


def test_adding_later(run, files):
    assert run("corpus", "build", "a.h5ad", "-o", "c")[0] == 0
    status, out, _ = run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "c")
    assert status == 0
    assert "c: 1 slide added, 1 there already; 160 spots" in out
    status, out, _ = run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "c")
    assert (status, out.count("\n")) == (0, 1)
    assert "0 slides added, 2 there already" in out
    assert "1 slide added" in run("corpus", "build", "a.h5ad", "-o", "c", "--overwrite")[1]


def test_a_bad_slide_is_told_after_the_others_are_added(run, files):
    status, out, err = run("corpus", "build", "no.h5ad", "a.h5ad", "-o", "c")
    assert status == 2
    assert "1 slide added, 0 there already, 1 failed" in out
    assert one_line(err) == (
        "error: 1 of 2 slides were left out of c; the first: no: does not exist; check the path"
    )
    assert len(Corpus.open("c").table) == 1


def test_the_table_and_organs(run, files, tmp_path):
    table = pd.DataFrame({"slide": ["a", "b"], "patient": ["x", "y"], "organ": ["Skin", "Lung"]})
    table.to_csv("t.csv", index=False)
    both = ["corpus", "build", "a.h5ad", "b.h5ad", "--table", "t.csv"]
    assert run(*both, "-o", "c", "--organ", "lung")[0] == 0
    assert Corpus.open("c").table["patient"].to_dict() == {"b": "y"}
    status, _, err = run(*both, "-o", "c", "--organ", "Kidney")
    assert status == 2
    assert one_line(err) == "error: --organ: no slide is of 'Kidney'; the organs are Lung, Skin"
    status, _, err = run("corpus", "build", "a.h5ad", "-o", "c", "--organ", "Skin")
    assert "give a --table with a column organ" in one_line(err)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,patient\na,x\n", "has columns name, patient; it needs one named slide"),
        ("slide,patient\na,x\na,y\n", "has two rows of slide 'a'"),
        ("", "cannot be read as a CSV table"),
    ],
)
def test_a_table_that_is_none(run, files, tmp_path, content, words):
    (tmp_path / "t.csv").write_text(content)
    status, _, err = run("corpus", "build", "a.h5ad", "-o", "c", "--table", "t.csv")
    assert status == 2
    assert one_line(err).startswith("error: t.csv: ")
    assert words in err
    assert not (tmp_path / "c").exists()


def test_a_hest_download_is_known_by_its_table(run, files, tmp_path):
    (tmp_path / "hest" / "st").mkdir(parents=True)
    rows = [
        [name, "Atlas", "", "P1", organ, "Healthy", "", "Homo sapiens", "Visium", "CC0", "", ""]
        for name, organ in (("T1", "Skin"), ("T2", "Lung"))
    ]
    columns = (
        "id dataset_title subseries patient organ disease_state oncotree_code species "
        "st_technology license study_link download_page_link1"
    )
    table = pd.DataFrame(rows, columns=columns.split())
    table.to_csv(tmp_path / "hest" / "HEST_v1_1_0.csv", index=False)
    for old, new in (("a", "T1"), ("b", "T2")):
        (tmp_path / f"{old}.h5ad").rename(tmp_path / "hest" / "st" / f"{new}.h5ad")
    simulate(80, seed=3, patient="p3").write_h5ad(tmp_path / "own.h5ad")
    pd.DataFrame({"slide": ["T1"], "license": ["mine"]}).to_csv("t.csv", index=False)
    status, _, err = run("corpus", "build", "hest", "own.h5ad", "-o", "c", "--table", "t.csv")
    assert (status, err) == (0, "")
    found = Corpus.open("c").table
    assert found["patient"].to_dict() == {"T1": "Atlas: P1", "T2": "Atlas: P1", "own": "p3"}
    assert found["license"].to_dict() == {"T1": "mine", "T2": "CC0", "own": ""}
    assert run("corpus", "build", "hest", "-o", "s", "--organ", "Skin")[0] == 0
    assert Corpus.open("s").table.index.tolist() == ["T1"]


def test_info_of_many_slides_is_aligned(run, files, tmp_path):
    table = pd.DataFrame({"slide": ["a"], "patient": ["A very long title " * 5], "organ": ["Skin"]})
    table.to_csv("t.csv", index=False)
    run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "c", "--table", "t.csv")
    lines = run("corpus", "info", "c")[1].splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert "…" in lines[1]


def test_faults_are_told(run, files, tmp_path):
    run("corpus", "build", "a.h5ad", "b.h5ad", "-o", "c")
    path = tmp_path / "c" / "slides" / "b.zarr" / "X" / "data" / "c" / "0"
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(content)
    status, out, err = run("corpus", "info", "c", "--verify")
    assert status == 2
    assert "fault: c: slide 'b' is damaged (X/data/c/0 fails its checksum)" in out
    assert one_line(err) == "error: c: 1 of 2 slides are damaged"
    status, _, err = run("corpus", "info", "nothing")
    assert status == 2
    assert "nothing: is no corpus" in one_line(err)
