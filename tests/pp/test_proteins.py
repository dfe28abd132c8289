import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.pp import clr, simulate
from sagefm.pp.proteins import are_isotypes, genes_of_proteins


def test_clr_is_that_of_seurat_and_muon():
    counts = np.array([[0.0, 3, 10], [5, 5, 5], [0, 0, 0]])
    found = clr(counts)
    by_hand = np.log1p(3 / np.exp((np.log1p(3) + np.log1p(10)) / 3))
    assert found[0, 1] == pytest.approx(by_hand)
    assert np.ptp(found[1]) == 0
    assert (found[2] == 0).all()


def test_clr_keeps_names_and_spots_that_are_not_measured():
    table = pd.DataFrame([[1, 2], [np.nan, np.nan]], index=["a", "b"], columns=["p", "q"])
    found = clr(table)
    assert found.columns.equals(table.columns)
    assert found.loc["b"].isna().all()
    assert found.loc["a"].notna().all()


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        (simulate(20), "AnnData is no table"),
        (np.array([1.0, 2]), "is no table"),
        (np.array([[-1.0, 2]]), "negative"),
        (np.array([[np.inf, 2]]), "infinite"),
        (pd.DataFrame({"a": ["x"]}), "no numbers"),
    ],
)
def test_clr_of_what_is_no_counts(counts, fault):
    with pytest.raises(InputError, match=fault):
        clr(counts)


@pytest.mark.parametrize(
    "name",
    [
        *("mouse_IgG1k", "mouse_IgG2a.1", "rat_IgG2a.1", "mouse_IgG2bk", "IgG2b_control"),
        *("IgG1_control_TotalSeqB", "Mouse IgG1, κ isotype Ctrl", "isotype_CTRL_IgG2b", "IgG1"),
        *("Ms IgG1", "Rb-IgG", "HamsterIgG", "ratIgG2b", "Isotype_RTK2071"),
    ],
)
def test_isotype_controls_are_recognized(name):
    assert are_isotypes([name]).all()


@pytest.mark.parametrize(
    "name", ["CD3E", "IgM", "IgD", "anti-human_IgG_Fc", "IGHG1", "IgG Fc", "migraine", "CD16", ""]
)
def test_other_names_are_no_isotype_controls(name):
    assert not are_isotypes([name]).any()


@pytest.mark.parametrize(
    ("name", "gene"),
    [
        *(("CD3E", "CD3E"), ("CD3E.1", "CD3E"), ("CD8A.1", "CD8A"), ("PTPRC-2", "PTPRC")),
        *(("PD-1", "PDCD1"), ("PD1", "PDCD1"), ("CD45RA", "PTPRC"), ("CD8a", "CD8A")),
        *(("CD3_TotalSeqB", "CD3E"), ("CD3 (UCHT1)", "CD3E"), ("CD3-UCHT1-TSA", "CD3E")),
        *(("anti-human_CD20", "MS4A1"), ("HLA-DR", "HLA-DRA"), ("Keratin 5", "KRT5")),
        *(("NKX2-5.1", "NKX2-5"), ("Ki-67", "MKI67"), ("A0034-CD3", "CD3E"), ("aSMA", "ACTA2")),
    ],
)
def test_the_gene_of_a_protein(name, gene):
    assert genes_of_proteins([name], []) == {name: gene}


def test_names_of_the_slide_come_first():
    assert genes_of_proteins(["G7.1", "Cd3e", "CD4"], ["G7", "Cd3e", "Cd4"]) == {
        "G7.1": "G7",
        "Cd3e": "Cd3e",
        "CD4": "Cd4",
    }


def test_proteins_of_no_gene_are_absent():
    assert genes_of_proteins(["Pan-Keratin", "Fusobacterium", "mouse_IgG1k.1"], ["ACTB"]) == {}
