import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp import average, clr, nearest, read, simulate
from sagefm.pp.modalities import modality

N = 12


@pytest.fixture(scope="module")
def slide():
    return simulate(500, seed=2, n_proteins=N)


@pytest.fixture(scope="module")
def truth(slide):
    return slide.uns["simulation"]["proteins"]


def correlations(one, other):
    return np.array([np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(one.shape[1])])


def log_fractions(slide, genes):
    totals = np.asarray(slide.X.sum(axis=1))
    return np.log1p(1e4 * slide[:, genes].X.toarray() / totals)


def test_genes_do_not_depend_on_proteins(slide):
    without = simulate(500, seed=2)
    assert (without.X != slide.X).nnz == 0
    assert without.obs.equals(slide.obs)
    assert "antibody_capture" not in without.obsm
    assert "proteins" not in without.uns["simulation"]


def test_proteins_are_counts_of_genes_of_the_slide_and_isotype_controls(slide, truth):
    table = slide.obsm["antibody_capture"]
    values = table.to_numpy()
    assert table.shape == (500, N + 3)
    assert (values >= 0).all()
    assert (values == np.rint(values)).all()
    assert truth["gene"].isin(slide.var_names).all()
    assert truth["gene"].is_unique
    found = modality(slide, "protein")
    assert list(found.counts) == list(truth.index)
    assert list(found.controls) == ["mouse_IgG1k.1", "mouse_IgG2bk.1", "rat_IgG2a.1"]
    assert found.gene_of() == dict(zip(truth.index, truth["gene"], strict=True))


def test_proteins_of_a_biology_are_the_same_on_every_slide(truth):
    other = simulate(300, seed=9, n_proteins=N).uns["simulation"]["proteins"]
    same = ["gene", "spillover", "ligand", "strength"]
    pd.testing.assert_frame_equal(other[same], truth[same])
    unlike = simulate(300, seed=9, n_proteins=N, biology_seed=1).uns["simulation"]["proteins"]
    assert list(unlike["gene"]) != list(truth["gene"])


def test_proteins_follow_their_gene_as_far_as_the_truth_says(slide, truth):
    values = clr(slide.obsm["antibody_capture"].to_numpy(np.float64)[:, :N])
    smooth = average(nearest(slide.obsm["spatial"])) @ log_fractions(slide, truth["gene"])
    found = correlations(smooth, values)
    assert (found < truth["recoverable_r"] + 0.15).all()
    strong = truth["follows"] > 0.5
    assert found[strong].mean() > 0.3
    assert found[truth["follows"] < 0.15].mean() < 0.3
    assert truth.loc[strong, "recoverable_r"].mean() > 0.5


def test_receptors_respond_to_the_ligand_of_their_neighbors(slide, truth):
    values = clr(slide.obsm["antibody_capture"].to_numpy(np.float64)[:, :N])
    coupled = (truth["ligand"] != "").to_numpy()
    assert 0 < coupled.sum() < N
    assert (truth.loc[coupled, "strength"] > 0).all()
    assert (truth.loc[~coupled, "strength"] == 0).all()
    ligands = slide[:, truth.loc[coupled, "ligand"]].X
    received = average(nearest(slide.obsm["spatial"]), center=False) @ ligands.log1p()
    assert (correlations(received.toarray(), values[:, coupled]) > 0.4).all()


def test_isotype_controls_follow_the_tissue_and_no_protein(slide):
    table = slide.obsm["antibody_capture"].to_numpy(np.float64)
    controls = np.log1p(table[:, N:])
    assert np.corrcoef(controls.T)[0, 1] > 0.1
    assert np.median(table[:, N:]) < np.median(table[:, :N].mean(axis=0))


def test_a_slide_with_proteins_can_be_written(slide, truth, tmp_path):
    slide.write_h5ad(tmp_path / "s.h5ad")
    again = read(tmp_path / "s.h5ad")
    pd.testing.assert_frame_equal(again.obsm["antibody_capture"], slide.obsm["antibody_capture"])
    kept = again.uns["simulation"]["proteins"]
    pd.testing.assert_frame_equal(kept, truth, check_dtype=False)


def test_few_genes_and_no_couplings(slide):
    genes = [f"G{i}" for i in range(20)]
    small = simulate(40, genes=genes, n_couplings=0, n_proteins=20)
    assert (small.uns["simulation"]["proteins"]["ligand"] == "").all()
    with pytest.raises(InputError, match="n_proteins is 21; give at most 20"):
        simulate(40, genes=genes, n_couplings=0, n_proteins=21)
    for wrong in (-1, 2.5, "3", None, True):
        with pytest.raises(InputError, match=f"n_proteins is '?{wrong}"):
            simulate(40, n_proteins=wrong)
