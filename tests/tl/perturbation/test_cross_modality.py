"""Pairs across modalities: the protein of a target, and its ligand's mRNA around it."""

import logging

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.pp import Vocabulary, clr
from sagefm.pp.modalities import modality
from sagefm.pp.simulate import simulate
from sagefm.tl import perturb
from sagefm.tl.perturbation._coexpression import NEIGHBORS, Coexpression
from sagefm.tl.perturbation._cross_modality import _correlate

COLUMNS = ["protein", "z_protein", "p_protein", "q_protein"]
EVIDENCE = ["protein, neighbors", "protein, given components"]
HOW = {"levels": 2, "n_matched": 30, "n_spots": 16, "n_null_spots": 8}


@pytest.fixture(scope="module")
def measured():
    return simulate(400, seed=1, n_proteins=20, n_couplings=4)


@pytest.fixture(scope="module")
def truth(measured):
    """Pairs, planted (strength above 0) and not."""
    return measured.uns["simulation"]["couplings"]


@pytest.fixture(scope="module")
def model(measured):
    vocabulary = Vocabulary(tuple(measured.var_names))
    return SageFM.new(vocabulary, Config(widths=(8, 8, 8, 8, 8)), seed=0)


@pytest.fixture(scope="module")
def table(measured, model, truth):
    return perturb(measured, model, truth[["ligand", "target"]], **HOW)


@pytest.fixture(scope="module")
def alone(measured, model, truth):
    slide = measured.copy()
    del slide.obsm["antibody_capture"]
    return perturb(slide, model, truth[["ligand", "target"]], **HOW)


def test_receptors_that_respond_stand_out(table, truth):
    planted = truth["strength"].to_numpy() > 0
    z = table["z_protein"].to_numpy()
    assert z[planted].min() > np.abs(z[~planted]).max()
    assert table["p_protein"][planted].max() < 0.06 < table["p_protein"][~planted].min()
    assert (table["q_protein"][planted] < 0.05).sum() >= 3
    sets = table.attrs["sets"].set_index("evidence")
    assert (sets.loc[EVIDENCE, "p"] < 0.01).all()
    assert (sets.loc[EVIDENCE, "n_pairs"] == len(truth)).all()


def test_all_other_numbers_are_those_without_proteins(table, alone):
    pd.testing.assert_frame_equal(table.drop(columns=COLUMNS), alone, check_exact=True)
    assert list(table)[-4:] == COLUMNS
    sets = table.attrs["sets"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(sets[~sets["evidence"].isin(EVIDENCE)]), pd.DataFrame(alone.attrs["sets"]),
        check_exact=True,
    )  # fmt: skip


def test_z_is_a_partial_correlation(table, measured, model):
    """By least squares, for one pair."""
    pair = table.iloc[0]
    prepared = model.prepare(measured)
    raw = prepared.counts.toarray().astype(float)
    sizes = raw.sum(axis=1)
    scale = np.median(sizes[sizes > 0]) / np.maximum(sizes, 1)
    ligand = np.log1p(raw[:, model.vocabulary.positions([pair["ligand"]])[0]] * scale)
    proteins = measured.obsm["antibody_capture"].iloc[:, :20]
    around = prepared.neighbors[:, 1:]
    of_genes, of_proteins = np.log(np.maximum(sizes, 1)), np.log1p(proteins.sum(axis=1).to_numpy())
    held = np.column_stack(
        [np.ones(400), of_genes, of_genes[around].mean(axis=1), of_proteins,
         of_proteins[around].mean(axis=1)]
    )  # fmt: skip
    left = [
        values - held @ np.linalg.lstsq(held, values)[0]
        for values in (ligand[around].mean(axis=1), clr(proteins)[pair["protein"]].to_numpy())
    ]
    r = np.corrcoef(*left)[0, 1]
    raised = model.vocabulary.positions([pair["ligand"]])
    found = _correlate(
        Coexpression.of(prepared), modality(measured, "protein"), [[pair["protein"]]], raised
    )
    assert found[NEIGHBORS][0, 0] == pytest.approx(np.arctanh(r) * np.sqrt(400 - 5 - 2), rel=1e-3)


def test_spots_that_were_not_measured_are_left_out(measured, model, truth):
    slide = measured.copy()
    half = np.arange(400) % 2 == 0
    slide.obsm["antibody_capture"].iloc[half] = np.nan
    planted = truth[truth["strength"] > 0][["ligand", "target"]]
    found = perturb(slide, model, planted, **HOW)
    assert found["z_protein"].notna().all()
    assert (found["z_protein"] > 1.5).all()


def test_slides_add_up_and_one_may_lack_proteins(measured, model, truth, table):
    pairs = truth[["ligand", "target"]]
    other = measured.copy()
    del other.obsm["antibody_capture"]
    found = perturb({"a": measured, "b": other}, model, pairs, **HOW)
    assert found["z_protein"].to_numpy() == pytest.approx(table["z_protein"].to_numpy(), rel=1e-4)
    twice = perturb({"a": measured, "b": measured}, model, pairs, **HOW)
    assert twice["z_protein"].to_numpy() == pytest.approx(
        np.sqrt(2) * table["z_protein"].to_numpy(), rel=1e-4
    )


def test_only_targets_with_a_protein_have_evidence(measured, model, truth):
    slide = measured.copy()
    first = truth["target"].iloc[0]
    proteins = slide.obsm["antibody_capture"]
    slide.obsm["antibody_capture"] = proteins.drop(columns=f"{first}.1")
    found = perturb(slide, model, truth[["ligand", "target"]], **HOW)
    assert found["protein"].iloc[0] == ""
    assert np.isnan(found["z_protein"].iloc[0])
    assert found["z_protein"].iloc[1:].notna().all()


def test_two_antibodies_of_a_gene_count_with_their_mean(measured, model, truth):
    slide = measured.copy()
    first = truth["target"].iloc[0]
    slide.obsm["antibody_capture"][f"{first}.2"] = slide.obsm["antibody_capture"][f"{first}.1"]
    found = perturb(slide, model, truth[["ligand", "target"]].iloc[:3], **HOW)
    assert found["protein"].iloc[0] == f"{first}.1+{first}.2"
    assert found["z_protein"].iloc[0] > 4


def test_what_is_missing_is_said(measured, model, truth, caplog):
    pairs = truth[["ligand", "target"]].iloc[:3]
    with pytest.raises(InputError, match="nothing"):
        perturb(measured, model, pairs, with_="nothing", **HOW)
    slide = measured.copy()
    slide.obsm["genera"] = pd.DataFrame({"Xx": np.ones(400), "Yy": np.ones(400)}, slide.obs_names)
    logging.getLogger("sagefm").addHandler(caplog.handler)
    found = perturb(slide, model, pairs, with_="genera", **HOW)
    logging.getLogger("sagefm").removeHandler(caplog.handler)
    assert "genera: no target of the pairs is in it" in caplog.text
    assert "z_genera" not in found
