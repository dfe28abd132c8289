import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from tests.pp.folders import SYMBOLS, a_slide, told

from sagefm import InputError, read
from sagefm.pp import features
from sagefm.pp.counts import counts
from sagefm.pp.writing import write_slide


def mixed(column="feature_types", gene="Gene Expression", other="Antibody Capture"):
    """A slide whose last two features are no genes; one has the name of a gene."""
    slide = a_slide(names=(*SYMBOLS[:6], "MBP-protein", "CD3"))
    slide.var.index = pd.Index([*SYMBOLS[:6], SYMBOLS[3], "CD3"])
    slide.var[column] = [gene] * 6 + [other] * 2
    return slide


@pytest.mark.parametrize(
    ("column", "gene", "other"),
    [
        ("feature_types", "Gene Expression", "Antibody Capture"),
        ("feature_types", "Gene Expression", "CRISPR Guide Capture"),
        ("feature_types", "Gene Expression", "Custom"),
        ("feature_types", "Gene Expression", "Something New"),
        ("Feature Type", "gene expression", "Negative Control Probe"),
        ("modality", "rna", "protein"),
        ("modality", "RNA", "ADT"),
        ("type", "gene", "Peaks"),
        ("feature_biotype", "gene", "spike-in"),
    ],
)
def test_features_that_are_no_genes_are_not_counted(column, gene, other):
    slide = mixed(column, gene, other)
    found = counts(slide)
    assert list(found.var.index) == list(SYMBOLS[:6])
    np.testing.assert_array_equal(found.matrix.toarray(), slide.X[:, :6].toarray())
    assert found.note == f"features that are not genes are not used: 2 {other}"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("feature_types", ["Gene Expression"] * 8),
        ("feature_types", ["Gene Expression"] * 7 + [None]),
        ("feature_type", ["protein_coding"] * 6 + ["lncRNA"] * 2),
        ("type", ["gene"] * 6 + ["pseudogene"] * 2),
        ("kind", ["protein"] * 8),
    ],
)
def test_genes_of_every_sort_are_counted(column, values):
    slide = a_slide()
    slide.var[column] = values
    found = counts(slide)
    assert found.matrix.shape == (30, 8)
    assert not found.note


def test_a_slide_without_genes_is_refused():
    slide = mixed(gene="Peaks")
    with pytest.raises(InputError, match=r"no feature is a gene.*\['feature_types'\] has Peaks, A"):
        counts(slide)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning")
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("categories", [True, False])
def test_other_features_are_kept_apart_and_named(tmp_path, ending, categories):
    slide = mixed()
    if categories:
        slide.var["feature_types"] = slide.var["feature_types"].astype("category")
    slide.layers["double"] = slide.X * 2
    path = tmp_path / f"a.{ending}"
    if ending == "zarr":
        pytest.importorskip("zarr")
    getattr(slide, f"write_{ending}")(path)
    again = read(path)
    assert list(again.var_names) == list(SYMBOLS[:6])
    np.testing.assert_array_equal(again.X.toarray(), slide.X[:, :6].toarray())
    np.testing.assert_array_equal(again.layers["double"].toarray(), 2 * again.X.toarray())
    table = again.obsm["antibody_capture"]
    assert list(table.columns) == [SYMBOLS[3], "CD3"]
    np.testing.assert_array_equal(table.to_numpy(), slide.X[:, 6:].toarray())
    assert "not genes are not used: 2 Antibody Capture" in told(again)
    assert "obsm['antibody_capture'] has the counts of 2 such features" in told(again)
    write_slide(again, tmp_path / "b.h5ad")
    assert told(read(tmp_path / "b.h5ad")) == told(again)


def test_antibodies_may_hold_any_values_and_raw_has_its_own_genes(tmp_path):
    whole = mixed()
    whole.var_names_make_unique()
    slide = whole[:, :3].copy()
    slide.raw = whole
    slide.X = csr_matrix(np.log1p(slide.X.toarray()))
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.var_names) == list(SYMBOLS[:6])
    assert again.obsm["antibody_capture"].shape == (30, 2)


def test_thousands_of_peaks_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_AT_MOST", 1)
    slide = mixed(other="Peaks")
    slide.var_names_make_unique()
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert "features that are not genes are left out: 2 Peaks" in told(again)
    assert list(again.obsm) == ["spatial"]
