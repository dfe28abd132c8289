import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from tests.pp.folders import SHARED, a_slide

from sagefm.pp.check import check, summarize
from sagefm.pp.gene_forms import name_kind


def messages(slide: AnnData, level: str, **options) -> list[str]:
    return [finding.message for finding in check(slide, **options) if finding.level == level]


def test_a_faultless_slide_has_no_findings():
    assert check(a_slide()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.5])
def test_values_that_are_no_counts_are_an_error(value):
    slide = a_slide()
    slide.X.data[0] = value
    (error,) = messages(slide, "error")
    assert "not raw counts" in error


def test_a_layer_with_counts_is_noted():
    slide = a_slide()
    slide.layers["counts"] = slide.X.copy()
    slide.X = slide.X * 0.1
    assert messages(slide, "error") == []
    (note,) = messages(slide, "note")
    assert "layers['counts']" in note
    assert messages(slide, "error", layer="X")


def test_everything_wrong_at_once_is_all_said_and_errors_come_first():
    slide = a_slide()
    slide.X.data[0] = -1
    del slide.obsm["spatial"]
    slide.obs["sample"] = ["a", "b"] * 15
    slide.obs.index = pd.Index(["same"] * 30)
    slide.var.index = pd.Index(["TP53"] * 8)
    findings = check(slide)
    assert [finding.level for finding in findings] == ["error"] * 4 + ["warning"]
    assert not any("\n" in finding.message for finding in findings)


def test_duplicate_symbols_are_a_warning():
    slide = a_slide()
    slide.var.index = pd.Index(["TP53", "TP53", *slide.var_names[2:]])
    (warning,) = messages(slide, "warning")
    assert warning.startswith("1 gene name is duplicated (TP53)")


def test_spots_and_genes_without_counts():
    slide = a_slide()
    dense = slide.X.toarray()
    dense[[2, 5]] = 0
    dense[:, 3] = 0
    slide.X = csr_matrix(dense)
    (warning,) = messages(slide, "warning")
    assert warning.startswith("2 spots without any count (")
    assert slide.obs_names[2] in warning
    assert messages(slide, "note") == ["1 gene without any count"]


def test_too_few_spots_names_the_slide():
    slide = a_slide()
    assert messages(slide, "error", n_neighbors=30) == []
    (error,) = messages(slide, "error", n_neighbors=31)
    assert error.startswith("the slide has 30 spots, but a neighborhood needs 31")
    slide.obs["part"] = ["left"] * 20 + ["right"] * 10
    (error,) = messages(slide, "error", slide_key="part")
    assert error.startswith("slide right has 10 spots")


def test_several_slides_and_a_wrong_key_are_errors():
    slide = a_slide()
    slide.obs["sample"] = ["a", "b"] * 15
    assert "slide_key='sample'" in messages(slide, "error")[0]
    assert "no obs column" in messages(slide, "error", slide_key="none")[0]
    assert messages(slide, "error", slide_key="sample") == []


@pytest.mark.parametrize(
    ("names", "kind", "level", "words"),
    [
        (["CD3", *(f"Gm199{i}" for i in range(7))], "mouse", "warning", "human orthologs"),
        ([f"ENSMUSG{i:011d}" for i in range(8)], "mouse", "warning", "human orthologs"),
        ([f"ENSRNOG{i:011d}" for i in range(8)], "ensembl_other", "warning", "another species"),
        ([f"ENSG{i:011d}.{i}" for i in range(8)], "ensembl", "note", "Ensembl ids"),
        ([str(7157 + i) for i in range(8)], "number", "warning", "wrong kind .*Entrez"),
        ([f"20{i}_s_at" for i in range(8)], "probe", "warning", "wrong kind .*probes"),
        ([f"ENST{i:011d}" for i in range(8)], "transcript", "warning", "wrong kind .*transcripts"),
        ([f"GRCh38_TP{i}" for i in range(8)], "symbol", "note", "prefix of a genome .*TP0"),
        ([f"mm10___Xkr{i}" for i in range(8)], "other", "warning", "another species"),
        ([f"P0{i}137" for i in range(8)], "uniprot", "warning", "wrong kind .*UniProt"),
        ([f"{i + 1}-Mar" for i in range(8)], "date", "warning", "wrong kind .*spreadsheet"),
        (["1-Mar", "TP53", *(f"KRT{i}" for i in range(1, 7))], "symbol", "warning", "restore"),
    ],
)  # fmt: skip
def test_names_of_the_wrong_kind(names, kind, level, words):
    slide = a_slide(names=names)
    assert name_kind(slide.var_names)[0] == kind
    (message,) = messages(slide, level)
    assert re.search(words, message)


def test_human_symbols_are_symbols():
    assert name_kind(pd.Index(["C1orf112", "AL627309.1", "HLA-A", "TP53", "MT-CO1"]))[0] == "symbol"
    assert name_kind(pd.Index([]))[0] == "symbol"


def test_spots_at_one_place_within_a_slide_are_a_warning():
    slide = a_slide()
    slide.obsm["spatial"][1] = slide.obsm["spatial"][0]
    (warning,) = messages(slide, "warning")
    assert warning.startswith("2 spots share their coordinates")
    slide.obs["part"] = ["a", "b"] * 15
    assert messages(slide, "warning", slide_key="part") == []


def test_low_depth_is_a_warning():
    slide = a_slide()
    slide.X.data[:] = 1
    (warning,) = messages(slide, "warning")
    assert warning.startswith(
        "low sequencing depth: the median spot has 8 counts (8 genes measured)"
    )


def test_a_slide_without_spots_or_genes():
    assert messages(a_slide()[:0], "error") == ["the slide has no spots; give one with raw counts"]
    assert messages(a_slide()[:, :0], "error")


def test_the_summary():
    slide = a_slide()
    slide.uns["spot_pitch_um"] = 100.0
    summary = summarize(slide)
    assert summary["spots"] == 30
    assert summary["genes"] == 8
    assert summary["slides"] == 1
    assert summary["counts_in"] == "X"
    assert summary["counts_per_spot"] == np.median(slide.X.sum(axis=1).A1)
    assert summary["genes_per_spot"] == 8
    assert summary["pitch_px"] == 10.0
    assert summary["um_per_px"] == 10.0
    assert summary["image"] is False
    slide.uns["spatial"] = {"a": {"images": {"hires": 1}, "scalefactors": {"microns_per_pixel": 3}}}
    assert summarize(slide)["um_per_px"] == 3.0
    assert summarize(slide)["image"] is True


def test_the_summary_of_a_bad_slide():
    slide = a_slide()
    slide.X.data[0] = -1
    del slide.obsm["spatial"]
    summary = summarize(slide)
    assert summary["counts_in"] is None
    assert summary["pitch_px"] is None
    assert summary["genes"] == 8


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real slides of shared/data are not here")
def test_a_real_slide_with_an_empty_spot():
    from sagefm import read

    findings = check(read(SHARED / "slides" / "her2st_D5.h5ad"))
    assert [finding.message for finding in findings] == [
        "1 spot without any count (18x20)",
        "501 genes without any count",
    ]
