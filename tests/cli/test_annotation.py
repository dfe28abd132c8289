"""The verb annotate, as a user types it."""

import os
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.pp import backed
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.simulate import simulate

HOW = ["-m", "m.safetensors", "--key", "domain", "--device", "cpu"]
KNOWN = ["--known", "p0.h5ad", "p1.h5ad"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    """Write two labeled patients, one that is not, and a model."""
    folder = tmp_path_factory.mktemp("files")
    for i in range(3):
        slide = simulate(150, n_domains=3, seed=i, patient=f"p{i}")
        if i == 2:
            del slide.obs["domain"]
        slide.write_h5ad(folder / f"p{i}.h5ad")
    model.save(folder / "m.safetensors")
    return folder


@pytest.fixture
def annotate(run, files, tmp_path):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    return lambda *words: run("annotate", *words)


def test_a_slide_is_labeled_by_others(annotate, model, tmp_path):
    words = ["--save", "a.safetensors", "--table", "t.csv", "--plot", "pictures"]
    status, out, err = annotate("p2.h5ad", *HOW, *KNOWN, "-o", "o.h5ad", *words)
    assert status == 0, err
    known = {name: sagefm.read(f"{name}.h5ad") for name in ("p0", "p1")}
    wanted = sagefm.read("p2.h5ad")
    learned = sagefm.tl.annotate(known, wanted, model, "domain")
    written = ad.read_h5ad("o.h5ad")
    pd.testing.assert_series_equal(written.obs["sagefm_label"], wanted.obs["sagefm_label"])
    lines = out.splitlines()
    sizes = wanted.obs["sagefm_label"].value_counts()
    assert lines[0] == "o.h5ad: " + ", ".join(f"{k} {n}" for k, n in sizes[sizes > 0].items())
    assert lines[1].startswith("held out, 2 patients: accuracy 0.")
    assert "(most frequent class 0." in lines[1]
    assert len(lines) == 2
    table = pd.read_csv("t.csv", index_col="patient")
    np.testing.assert_allclose(table["accuracy"], learned.score()["accuracy"], rtol=1e-5)
    assert sorted(os.listdir("pictures")) == ["annotation.png", "held_out.png"]


def test_a_kept_annotator_is_asked_again(annotate, model):
    status, _, err = annotate("p2.h5ad", *HOW, *KNOWN, "-o", "o.h5ad", "--save", "a.safetensors")
    assert status == 0, err
    words = ["--annotator", "a.safetensors", "--error-rate", 0.9, "-o", "again.h5ad"]
    status, out, err = annotate("p2.h5ad", *HOW, *words)
    assert status == 0, err
    one, two = ad.read_h5ad("o.h5ad"), ad.read_h5ad("again.h5ad")
    sure = (two.obs["sagefm_label"] != "unknown").to_numpy()
    assert 0 < sure.sum() <= len(sure)
    there = two.obs["sagefm_label"].astype(str)[sure]
    assert (there == one.obs["sagefm_label"].astype(str)[sure]).all()
    assert sure.all() or f"unknown {(~sure).sum()}" in out
    (line,) = [line for line in out.splitlines() if line.startswith("tolerated error 0.9; ")]
    held_out = sagefm.tl.Annotator.load("a.safetensors", model).held_out
    for name, row in held_out.realized(held_out.tolerated(0.9)).iterrows():
        assert f"{name} " in line
        assert not row["wrong"] > 0.9


def test_the_counts_of_a_large_slide_stay_on_disk(annotate, monkeypatch):
    save = ["--save", "a.safetensors", "-o", "whole.h5ad"]
    assert annotate("p2.h5ad", *HOW, "--features", "expression", *KNOWN, *save)[0] == 0
    monkeypatch.setattr(backed, "LARGE", 0)
    monkeypatch.setattr(AlignedSlide, "of", None)  # what counts in memory need
    words = ["--annotator", "a.safetensors", "--plot", "pictures", "-o", "o.h5ad"]
    status, _, err = annotate("p2.h5ad", *HOW, *words)
    assert status == 0, err
    one, two = ad.read_h5ad("whole.h5ad"), ad.read_h5ad("o.h5ad")
    assert (one.obs["sagefm_label"] == two.obs["sagefm_label"]).all()
    assert (one.X != two.X).nnz == 0
    assert sorted(os.listdir("pictures")) == ["annotation.png", "held_out.png"]


def test_labels_of_the_slide_itself_are_compared(annotate):
    slide = ad.read_h5ad("p1.h5ad")
    slide.obs["domain"] = slide.obs["domain"].astype(str).replace({"D3": "never seen"})
    slide.write_h5ad("own.h5ad")
    status, out, err = annotate("own.h5ad", *HOW, "--known", "p0.h5ad", "-o", "o.h5ad")
    assert status == 0, err
    assert (
        "note: all labels are of one patient: probabilities are calibrated on held-out blocks"
        in err
    )
    last = out.splitlines()[-1]
    assert last.startswith("obs['domain'] agrees in ")
    assert last.endswith("spots that have both; the annotator has no class never seen")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["-o", "o.h5ad"],
            "give labeled slides (--known SLIDES...) or a saved one (--annotator FILE)",
        ),
        ([*KNOWN, "--annotator", "a", "-o", "o.h5ad"], "give labeled slides"),
        ([*KNOWN, "-o", "o.csv"], "o.csv: give it a name that ends with .h5ad"),
        ([*KNOWN, "-o", "o.h5ad", "--save", "a.pkl"], "a.pkl: give it a name that ends with .safe"),
        ([*KNOWN, "-o", "o.h5ad", "--table", "t.txt"], "t.txt: give it a name that ends with .csv"),
        ([*KNOWN, "-o", "o.h5ad", "--plot", "p0.h5ad"], "p0.h5ad"),
        ([*KNOWN, "-o", "o.h5ad", "--error-rate", "2"], "--error-rate 2.0: give a number"),
        ([*KNOWN, "-o", "o.h5ad", "--key", "x"], "p0: obs['x']: no such column; obs has"),
        ([*KNOWN, "-o", "o.h5ad", "--key", "patient"], "p0: "),
        (["--known", "p2.h5ad", "-o", "o.h5ad"], "p2: obs['domain']: no such column"),
        (["--known", "nothere.h5ad", "-o", "o.h5ad"], "nothere.h5ad"),
        (["--known", "p0.h5ad", "./p0.h5ad", "-o", "o.h5ad"], "a second slide called 'p0'"),
        (["--annotator", "m.safetensors", "-o", "o.h5ad"], "m.safetensors: is no annotator"),
        (["--annotator", "nothere", "-o", "o.h5ad"], "nothere: no such file"),
        ([*KNOWN, "-o", "o.h5ad", "--method", "forest"], "--method"),
    ],
)
def test_bad_input_is_one_clear_line(annotate, words, said):
    if "patient" in words:  # one class in all
        for name in ("p0.h5ad", "p1.h5ad"):
            slide = ad.read_h5ad(name)
            slide.obs["patient"] = "x"
            slide.write_h5ad(name)
        said = "obs['patient']: needs two classes with at least 10 labeled spots"
    before = sorted(os.listdir())
    status, out, err = annotate("p2.h5ad", *HOW, *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(os.listdir()) == before
