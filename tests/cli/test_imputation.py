"""The verb impute, as a user types it."""

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.cli.imputation import _print_summary


@pytest.fixture
def run(run, slide, model):
    """Run `sagefm impute ...` in a folder with a slide and a model."""
    slide.write_h5ad("s.h5ad")
    model.save("m.safetensors")
    return lambda *words: run("impute", *words, "--device", "cpu")


def test_all_genes_that_the_slide_lacks(run, slide, model):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", "-o", "o.h5ad")
    assert status == 0, err
    wanted = sagefm.tl.impute(held := slide.copy(), model)
    r = wanted["r_expected"]
    assert out.splitlines() == [
        "o.h5ad: 2 genes imputed",
        f"not measured, expected correlation: {r.median():.2f} (median), {r.min():.2f} to "
        f"{r.max():.2f}",
    ]
    written = ad.read_h5ad("o.h5ad")
    pd.testing.assert_frame_equal(
        written.obsm["sagefm_imputed"], held.obsm["sagefm_imputed"], atol=1e-6
    )
    assert (written.X != slide.X).nnz == 0
    assert sorted(os.listdir()) == ["m.safetensors", "o.h5ad", "s.h5ad"]


def test_how_many_of_the_genes_that_are_called_good_are(capsys):
    columns = ["measured", "r_expected", "p_good"]
    rows = [(False, 0.4, 0.9), (False, 0.3, 0.5), (False, 0.1, 0.2), (True, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=columns).assign(r_model=0.5, beats_neighbors=False)
    _print_summary(table)
    said = "expected correlation of at least 0.3: 2 genes, and about 70% of them have it"
    assert said in capsys.readouterr().out.splitlines()
    _print_summary(table[2:])
    assert "at least" not in capsys.readouterr().out


def test_chosen_genes_in_a_region_with_table_and_picture(run, slide, model):
    genes = [gene for gene in model.vocabulary if gene in slide.var_names][:7]
    region = f"domain={slide.obs['domain'].iloc[0]}"
    words = ["--genes", ",".join(genes), "--region", region, "--counts-per-10k", "--seed", 3]
    words += ["--mask", "neighborhood", "--table", "t.csv", "--plot", "p"]
    status, out, err = run("s.h5ad", "-m", "m.safetensors", "-o", "s.h5ad", *words)
    assert status == 0, err
    wanted = sagefm.tl.impute(
        held := slide.copy(), model, genes, region=region, scale="counts_per_10k",
        mask="neighborhood", seed=3,
    )  # fmt: skip
    r, n_ahead = wanted["r_model"], int(wanted["beats_neighbors"].sum())
    assert out.splitlines() == [
        "s.h5ad: 7 genes imputed",
        f"measured, correlation while masked: {r.median():.2f} (median), {r.min():.2f} to "
        f"{r.max():.2f}",
        f"better than the mean of the neighbors, beyond chance: {n_ahead} of 7 measured genes",
    ]
    written = ad.read_h5ad("s.h5ad").obsm["sagefm_imputed"]
    pd.testing.assert_frame_equal(written, held.obsm["sagefm_imputed"], rtol=1e-4)
    table = pd.read_csv("t.csv", index_col="gene")
    pd.testing.assert_frame_equal(table, wanted, rtol=1e-4, check_dtype=False)
    assert os.listdir("p") == ["imputed.png"]


def test_several_slides_in_one_file(run, slide, model):
    both = ad.concat({"a": slide, "b": slide}, label="lane", index_unique="-")
    both.write_h5ad("b.h5ad")
    words = ["--genes", "NOT1A", "--slide-key", "lane", "--plot", "p"]
    status, out, err = run("b.h5ad", "-m", "m.safetensors", "-o", "o.h5ad", *words)
    assert status == 0, err
    assert out.startswith("o.h5ad: 1 gene imputed\n")
    assert os.listdir("p") == ["imputed.png"]
    values = ad.read_h5ad("o.h5ad").obsm["sagefm_imputed"]["NOT1A"].to_numpy()
    np.testing.assert_allclose(values[:200], model.predict(slide, genes=["NOT1A"])[:, 0], atol=1e-6)
    np.testing.assert_allclose(values[200:], values[:200])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "o.csv"], "o.csv: give it a name that ends with .h5ad"),
        (["-o", "o.h5ad", "--table", "t.txt"], "t.txt: give it a name that ends with .csv"),
        (["-o", "o.h5ad", "--genes", "NOT3A"], "s.h5ad: NOT3A: not one of the model's genes"),
        (["-o", "o.h5ad", "--genes", ","], "has no gene"),
        (["-o", "o.h5ad", "--genes", "NOT1A,NOT1A"], "s.h5ad: NOT1A: is given twice"),
        (["-o", "o.h5ad", "--region", "domain"], "write it KEY=VALUE"),
        (["-o", "o.h5ad", "--region", "domain=brain"], "no spot has that value"),
        (["-o", "o.h5ad", "--mask", "nowhere"], "--mask"),
        (["-o", "o.h5ad", "--plot", "s.h5ad"], "s.h5ad"),
        (["-o", "s.h5ad/o.h5ad"], "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line(run, words, said):
    status, out, err = run("s.h5ad", "-m", "m.safetensors", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(os.listdir()) == ["m.safetensors", "s.h5ad"]


def test_a_slide_that_would_lose_something_is_not_written_over(run, slide):
    processed = slide.copy()
    processed.layers["counts"] = processed.X.copy()
    processed.X = processed.X.log1p() * 0.7
    processed.write_h5ad("s.h5ad")
    status, _, err = run("s.h5ad", "-m", "m.safetensors", "-o", "s.h5ad")
    assert status == 2
    assert "s.h5ad: is not overwritten" in err
    assert "counts" in ad.read_h5ad("s.h5ad").layers
