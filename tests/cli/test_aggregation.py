"""The verbs aggregate and disaggregate, as a user types them."""

import anndata as ad
import pandas as pd
import pytest

import sagefm


@pytest.fixture(scope="module")
def bins():
    return sagefm.pp.simulate_tissue("cortex", 900, bin_um=8, depth=300, image=False)


def test_bins_are_summed_and_domains_go_back(run, bins):
    bins.write_h5ad("b.h5ad")
    status, out, err = run("aggregate", "b.h5ad", "--to", "16um", "-o", "a.h5ad")
    assert status == 0, err
    summed, wanted = ad.read_h5ad("a.h5ad"), sagefm.pp.aggregate(bins, 16)
    assert (summed.X != wanted.X).nnz == 0
    total = int(bins.X.sum())
    assert not [line for line in run("check", "a.h5ad")[1].splitlines() if " 8 µm apart" in line]
    assert out == f"a.h5ad: {wanted.n_obs:,} spots from 900 bins; all {total:,} counts are kept\n"
    summed.obs["domain"] = pd.Categorical(["1", "2"] * summed.n_obs)[: summed.n_obs]
    summed.write_h5ad("a.h5ad")
    status, out, err = run("disaggregate", "b.h5ad", "--aggregated", "a.h5ad", "-o", "c.h5ad")
    assert status == 0, err
    assert out == "c.h5ad: obs['domain'] of 900 spots\n"
    written = ad.read_h5ad("c.h5ad")
    assert (written.X != bins.X).nnz == 0
    sagefm.pp.disaggregate(summed, bins, ["domain"])
    assert (written.obs["domain"] == bins.obs["domain"]).all()
    del bins.obs["domain"]


def test_what_lies_outside_is_said(run, bins):
    bins.write_h5ad("b.h5ad")
    status, out, err = run("aggregate", "b.h5ad", "--to", "spots", "-o", "a.h5ad")
    assert status == 0
    assert "lie outside all spots" in out
    assert "--to hexagons keeps all" in err
    words = ["--keys", "n_aggregated"]
    status, out, _ = run("disaggregate", "b.h5ad", "--aggregated", "a.h5ad", "-o", "c.h5ad", *words)
    assert status == 0
    assert "outside have no value" in out


WRONG = {
    ("aggregate", "b.h5ad", "--to", "20um", "-o", "o.h5ad"): "b.h5ad: --to 20um: is no whole",
    ("aggregate", "b.h5ad", "--to", "16um", "-o", "b.h5ad"): "is the slide itself",
    ("aggregate", "b.h5ad", "--to", "16um", "-o", "o.csv"): "ends with .h5ad",
    ("aggregate", "b.h5ad", "-o", "o.h5ad"): "--to",
    ("disaggregate", "b.h5ad", "--aggregated", "b.h5ad", "-o", "o.h5ad"): "no record of its grid",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_does_not_fit_is_refused(run, bins, words):
    bins.write_h5ad("b.h5ad")
    status, _, err = run(*words)
    assert status == 2
    error = err.splitlines()[-1]
    assert error.startswith("error: ")
    assert WRONG[words] in error
