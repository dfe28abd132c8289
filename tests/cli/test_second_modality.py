"""The option --with, as a user types it."""

import anndata as ad
import pandas as pd
import pytest

from sagefm.pp.simulate import simulate


@pytest.fixture(scope="module")
def measured():
    return simulate(120, seed=6, n_domains=3, n_proteins=8, n_couplings=2)


@pytest.fixture
def run(run, measured, model):
    """Run `sagefm ...` in a folder with slides, a model and pairs."""
    measured.write_h5ad("s.h5ad")
    simulate(60, seed=7, n_proteins=8, n_couplings=2).write_h5ad("t.h5ad")
    model.save("m.safetensors")
    return run


def test_slides_are_embedded_together(run):
    words = ["-m", "m.safetensors", "-o", "out", "--with", "protein", "--workers", 1]
    status, _, err = run("embed", "s.h5ad", "t.h5ad", *words)
    assert status == 0, err
    widths = {ad.read_h5ad(f"out/{name}.h5ad").obsm["X_sagefm_joint"].shape[1] for name in "st"}
    assert len(widths) == 1
    status, _, err = run("embed", "s.h5ad", "t.h5ad", *words[:-3], "nothing", "--workers", 1)
    assert status == 2
    [said] = [line for line in err.strip().splitlines() if not line.startswith("note: ")]
    assert "nothing" in said


def test_domains_say_how_the_modalities_compare(run, monkeypatch):
    monkeypatch.setattr("sagefm.tl.clustering._search.N_STARTS", 9)
    monkeypatch.setattr("sagefm.tl.clustering._number._N_STARTS", 2)
    status, out, err = run("domains", "t.h5ad", "-n", 2, "-o", "o.h5ad", "--with", "protein")
    assert status == 0, err
    for modality in ("expression", "protein", "both"):
        assert f"domains of {modality}: stability" in out
    assert ad.read_h5ad("o.h5ad").uns["sagefm"]["domains"]["with"] == "protein"


def test_pairs_have_evidence_of_proteins(run, measured, model):
    genes = [name for name in model.vocabulary if name in measured.var_names]
    gene = measured.uns["simulation"]["proteins"]["gene"]
    targets = [name for name in gene if name in genes][:2]
    pairs = [(genes[i], target) for i, target in enumerate(targets)]
    pd.DataFrame(pairs, columns=["ligand", "target"]).to_csv("p.csv", index=False)
    words = ["--pairs", "p.csv", "-m", "m.safetensors", "--levels", 2, "--device", "cpu"]
    status, _, err = run("perturb", "s.h5ad", "-o", "o.csv", *words, "--with", "protein")
    assert status == 0, err
    assert list(pd.read_csv("o.csv"))[-4:] == ["protein", "z_protein", "p_protein", "q_protein"]
    assert "protein, neighbors" in set(pd.read_csv("o.sets.csv")["evidence"])
    status, _, err = run("perturb", "s.h5ad", "-o", "n.csv", *words, "--with", "nothing")
    assert status == 2
    assert "nothing" in err
