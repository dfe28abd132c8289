"""Output that exists and is not of the same slide is overwritten only with --overwrite."""

import os

import anndata as ad
import pytest

from sagefm import InputError
from sagefm.pretrain.corpus import build
from sagefm.tl import embed_many

MODEL = ["-m", "m.safetensors", "--device", "cpu"]


@pytest.fixture
def files(tmp_path, slide, model):
    """Two slides, what was made from the first, a model and gene names."""
    model.save(tmp_path / "m.safetensors")
    for name, rows in (("a", slice(0, 105)), ("b", slice(105, None))):
        slide[rows].copy().write_h5ad(tmp_path / f"{name}.h5ad")
    embed_many({tmp_path / "ea.h5ad": tmp_path / "a.h5ad"}, tmp_path / "m.safetensors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for name in ("full/imputed.png", "t.csv", "p.png", "o.html", "o.safetensors", "o.graphml"):
        (tmp_path / name).write_text("mine")
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


A = ["a.h5ad", "-o"]
FOREIGN = {
    "embed": ["embed", *A, "b.h5ad", *MODEL],
    "embed, of a result": ["embed", "b.h5ad", "-o", "ea.h5ad", *MODEL],
    "domains": ["domains", "ea.h5ad", "-n", 3, "-o", "b.h5ad"],
    "domains, plot": ["domains", "ea.h5ad", "-n", 3, "-o", "x.h5ad", "--plot", "p.png"],
    "impute": ["impute", *A, "b.h5ad", *MODEL],
    "impute, table": ["impute", *A, "x.h5ad", "--table", "t.csv", *MODEL],
    "impute, plot": ["impute", *A, "x.h5ad", "--plot", "full", *MODEL],
    "annotate": ["annotate", *A, "b.h5ad", "--annotator", "m.safetensors", *MODEL],
    "annotate, save": ["annotate", *A, "x.h5ad", "--annotator", "x", "--save", "o.safetensors"],
    "rare": ["rare", *A, "b.h5ad"],
    "rare, genes": ["rare", *A, "x.h5ad", "--genes", "t.csv"],
    "perturb": ["perturb", *A, "t.csv", "--ligand", "X", "--targets", "Y", *MODEL],
    "influence": ["influence", *A, "o.graphml", *MODEL],
    "subtype": ["subtype", "a.h5ad", "-o", "t.csv", "--subtype-key", "x", *MODEL],
    "outcome": ["outcome", *A, "full", "--table", "t.csv", "--target", "x", *MODEL],
    "cross": ["cross", *A, "t.csv", "--with", "protein"],
    "check": ["check", "a.h5ad", "--page", "o.html"],
    "convert": ["convert", "x.pt", "--genes", "g.txt", "-o", "o.safetensors"],
    "demo": ["demo", "-o", "full"],
    "evaluate": ["evaluate", "--slides", "a.h5ad", "-o", "full", "--protocol", "recovery", *MODEL],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_there_stays(run, files, name):
    before = contents(files)
    status, _, err = run(*FOREIGN[name])
    assert status == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith("add --overwrite")
    assert contents(files) == before


@pytest.mark.parametrize("name", ["embed", "domains", "impute, table", "check", "rare, genes"])
def test_on_demand_it_is_replaced(run, files, name):
    before = contents(files)
    status, _, err = run(*FOREIGN[name], "--overwrite")
    assert status == 0, err
    after = contents(files)
    assert [path for path in before if after[path] != before[path]]


def test_what_was_made_from_the_slide_is_replaced(run, files):
    """A chain of commands, all with the same result; and a slide in its own place."""
    steps = [
        ["embed", "a.h5ad", "-o", "r.h5ad", *MODEL],
        ["domains", "r.h5ad", "-n", 3, "-o", "r.h5ad"],
        ["rare", "a.h5ad", "-o", "r.h5ad"],
        ["embed", "a.h5ad", "-o", "r.h5ad", *MODEL],
        ["embed", "r.h5ad", "-o", "ea.h5ad", *MODEL],
        ["embed", "a.h5ad", "-o", "a.h5ad", *MODEL],
    ]
    for step in steps:
        status, _, err = run(*step)
        assert status == 0, (step, err)
    assert ad.read_h5ad("r.h5ad").uns["sagefm"]["read"]["source"] == str(files / "a.h5ad")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_the_slide_is_the_slide(run, files, link):
    link("a.h5ad", "link.h5ad")
    assert run("embed", "a.h5ad", "-o", "link.h5ad", *MODEL)[0] == 0
    assert "X_sagefm" in ad.read_h5ad("link.h5ad").obsm


def test_one_foreign_file_does_not_stop_the_other_slides(run, files):
    os.mkdir("out")
    os.link("b.h5ad", "out/a.h5ad")
    before = contents(files)
    status, _, err = run("embed", "a.h5ad", "b.h5ad", "-o", "out", *MODEL, "--workers", 1)
    assert status == 2
    assert "out/a.h5ad: exists already and was not made from" in err
    assert {path.name for path in contents(files).keys() - before.keys()} == {"b.h5ad"}
    assert contents(files).items() >= before.items()
    status, out, _ = run("embed", "a.h5ad", "b.h5ad", "-o", "out", *MODEL, "--overwrite")
    assert status == 0
    assert "1 embedded, 1 already there" in out


def test_a_demo_replaces_a_demo(run, files, monkeypatch):
    def stop(*_):
        raise InputError("stop")

    monkeypatch.setattr("sagefm.demo.story._compare", stop)
    monkeypatch.setattr("sagefm.demo.story.SPOTS", 120)
    for _ in range(2):  # also of a demo that ended early
        assert "error: stop" in run("demo", "-o", "d")[2]
    assert (files / "d" / "cortex.h5ad").is_file()


def test_the_slide_of_a_corpus_is_not_written_over_another(files):
    build({"a": files / "a.h5ad"}, files / "c")
    out, model = files / "b.h5ad", files / "m.safetensors"
    assert "was not made from" in embed_many({out: (files / "c", "a")}, model).failed[out]
    assert embed_many({out: (files / "c", "a")}, model, overwrite=True).finished
    assert embed_many({out: (files / "c", "a")}, model, again=True).finished


def test_an_earlier_result_of_the_same_command_for_the_same_slide_is_replaced(run, files):
    gene = ad.read_h5ad("a.h5ad").var_names[0]
    words = ["influence", "--genes", gene, *MODEL, "-o", "new.csv"]
    for slide, expected in (("a.h5ad", 0), ("a.h5ad", 0), ("b.h5ad", 2), ("./a.h5ad", 0)):
        status, _, err = run(*words, slide)
        if expected == 2 and not hasattr(os, "getxattr"):
            return
        assert status == expected, err
