"""The verb rare, as a user types it."""

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.pp.plant import plant


@pytest.fixture(scope="module")
def planted(slide):
    return plant(slide, 0.04, fold=15, seed=1)


@pytest.fixture
def run(run, planted, model):
    """Run `sagefm rare ...` in a folder with a slide and a model."""
    planted.write_h5ad("s.h5ad")
    model.save("m.safetensors")
    return lambda *words: run("rare", *words, "--device", "cpu")


def test_score_tables_and_picture(run, planted):
    words = [
        "--share",
        0.05,
        "--seed",
        3,
        "--table",
        "t.csv",
        "--genes",
        "g.csv",
        "--plot",
        "p.png",
    ]
    status, out, err = run("s.h5ad", "-o", "o.h5ad", *words)
    assert status == 0, err
    spots, genes = sagefm.tl.rare(held := planted.copy(), share=0.05, seed=3)
    beyond = held.uns["sagefm"]["rare"]["n_beyond_noise"]
    n = len(held.obs["sagefm_rare"].cat.categories) - 1
    assert out == (
        f"o.h5ad: 10 spots listed; {beyond} spots beyond noise, "
        f"{n} population{'' if n == 1 else 's'}\n"
    )
    written = ad.read_h5ad("o.h5ad")
    np.testing.assert_allclose(written.obs["sagefm_rare_score"], held.obs["sagefm_rare_score"])
    assert (written.X != planted.X).nnz == 0
    back = pd.read_csv("t.csv", index_col="spot", dtype={"population": str})
    pd.testing.assert_frame_equal(back, spots, rtol=1e-4, check_dtype=False)
    back = pd.read_csv("g.csv", dtype={"population": str})
    pd.testing.assert_frame_equal(back, genes, rtol=1e-4, check_dtype=False)
    assert os.path.getsize("p.png") > 20_000
    files = ["g.csv", "m.safetensors", "o.h5ad", "p.png", "s.h5ad", "t.csv"]
    assert sorted(os.listdir()) == files


def test_with_a_model_over_the_same_file(run, planted, model):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", "-o", "s.h5ad")
    assert status == 0, err
    assert out.startswith("s.h5ad: 4 spots listed; ")
    sagefm.tl.rare(held := planted.copy(), model)
    written = ad.read_h5ad("s.h5ad")
    np.testing.assert_allclose(
        written.obs["sagefm_rare_score"], held.obs["sagefm_rare_score"], atol=1e-3
    )
    assert written.uns["sagefm"]["rare"]["fingerprint"] == model.fingerprint


def test_several_slides_in_one_file(run, planted):
    both = ad.concat({"a": planted, "b": planted}, label="lane", index_unique="-")
    both.write_h5ad("b.h5ad")
    status, out, err = run("b.h5ad", "-o", "o.h5ad", "--slide-key", "lane", "--plot", "p.pdf")
    assert status == 0, err
    assert out.startswith("o.h5ad: 8 spots listed; ")
    assert os.path.getsize("p.pdf") > 5_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "o.csv"], "o.csv: give it a name that ends with .h5ad"),
        (["-o", "o.h5ad", "--table", "t.txt"], "t.txt: give it a name that ends with .csv"),
        (["-o", "o.h5ad", "--genes", "t.txt"], "t.txt: give it a name that ends with .csv"),
        (["-o", "o.h5ad", "--plot", "p.doc"], "p.doc: give it a name that ends with .png"),
        (["-o", "o.h5ad", "--share", "0.5"], "s.h5ad: --share 0.5: give a number above 0"),
        (["-o", "o.h5ad", "--share", "nan"], "s.h5ad: --share nan: give a number above 0"),
        (["-o", "o.h5ad", "-m", "n.safetensors"], "n.safetensors"),
        (["-o", "o.h5ad", "-m", "s.h5ad"], "s.h5ad"),
        (["-o", "o.h5ad", "--slide-key", "lane"], "there is no obs column 'lane'"),
        (["-o", "o.h5ad", "--layer", "raw_counts"], "there is no layer 'raw_counts'"),
        (["-o", "s.h5ad/o.h5ad"], "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line(run, words, said):
    status, out, err = run("s.h5ad", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(os.listdir()) == ["m.safetensors", "s.h5ad"]


def few_spots(slide):
    return slide[:40].copy()


def logs(slide):
    slide.X = slide.X.log1p()
    return slide


def gaps(slide):
    slide.X = slide.X.copy()
    slide.X.data[5] = np.nan
    return slide


def no_places(slide):
    del slide.obsm["spatial"]
    return slide


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (few_spots, "bad.h5ad: 40 spots with counts on a slide are too few"),
        (logs, "log-normalized"),
        (gaps, "NaN or infinite value"),
        (no_places, "obsm['spatial'] is missing"),
    ],
)
def test_a_bad_slide_is_one_clear_line(run, planted, spoil, said):
    spoil(planted.copy()).write_h5ad("bad.h5ad")
    status, out, err = run("bad.h5ad", "-o", "o.h5ad", "--table", "t.csv")
    assert status == 2
    assert "bad.h5ad" in err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(os.listdir()) == ["bad.h5ad", "m.safetensors", "s.h5ad"]
