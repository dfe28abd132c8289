import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError
from sagefm.pl._imputation import clearest


@pytest.fixture(autouse=True)
def no_figure_is_left_to_the_next_test():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def names(model, slide):
    """Measured genes, common ones first."""
    shown = [gene for gene in model.vocabulary if gene in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    return [shown[i] for i in np.argsort(-depth)[:8]]


@pytest.fixture(scope="module")
def filled(slide, model, names):
    held = slide.copy()
    sagefm.tl.impute(held, model, [*names, "NOT1A"])
    return held


def values(panel):
    return np.ma.filled(panel.collections[-1].get_array(), np.nan)


def test_measured_beside_imputed(filled, names):
    rows = sagefm.pl.imputed(filled, names[:2])
    table = filled.uns["sagefm"]["imputed"]["confidence"]
    for name, (left, right) in zip(names, rows, strict=False):
        counts = np.asarray(filled[:, name].X.todense()).ravel()
        library = np.asarray(filled.X.sum(axis=1)).ravel()
        scaled = np.median(library) / library  # the map shows structure, not library size
        np.testing.assert_allclose(values(left), np.log1p(counts * scaled), rtol=1e-6)
        predicted = np.expm1(filled.obsm["sagefm_imputed"][name])
        np.testing.assert_allclose(values(right), np.log1p(predicted * scaled), rtol=1e-6)
        assert left.get_title().strip() == f"{name}, measured"
        r, around = table.loc[name, ["r_model", "r_neighbor_mean"]]
        assert right.get_title() == f"{name}, imputed\nr = {r:.2f} (neighbors {around:.2f})"
        limits = np.percentile(values(right), [1, 99])
        for panel in (left, right):
            assert panel.collections[-1].get_clim() == pytest.approx(tuple(limits))
        label = right.figure.get_supxlabel()
        assert label == "colors: log1p counts, scaled to the median library size"


def test_a_gene_that_was_not_measured_stands_alone(filled, names):
    (only,) = sagefm.pl.imputed(filled, "NOT1A")
    assert len(only) == 1
    r = filled.uns["sagefm"]["imputed"]["confidence"].loc["NOT1A"]
    said = f"{r['r_expected']:.2f} ({r['r_expected_low']:.2f}\u2013{r['r_expected_high']:.2f})"
    assert only[0].get_title() == f"NOT1A, imputed\nexpected r = {said}"
    one, two = sagefm.pl.imputed(filled, [names[0], "NOT1A"])
    assert (len(one), len(two)) == (2, 1)
    empty = two[0].figure.axes[2]
    assert [text.get_text() for text in empty.texts] == ["NOT1A: not measured"]
    assert not empty.axison


def test_six_genes_by_default(filled):
    rows = sagefm.pl.imputed(filled)
    table = filled.uns["sagefm"]["imputed"]["confidence"]
    assert [row[-1].get_title().split(",")[0] for row in rows] == clearest(table)
    assert len(rows) == 6


def test_the_clearest_are_those_with_the_highest_correlation():
    table = pd.DataFrame(
        {
            "r_model": [0.5, 0.3, np.nan, np.nan, 0.6],
            "r_expected": [np.nan, np.nan, 0.4, np.nan, np.nan],
        },
        index=list("ABCDE"),
    )
    assert clearest(table) == ["E", "A", "C", "B", "D"]
    assert clearest(table, 2) == ["E", "A"]


def test_a_region_in_counts_per_10k(slide, model, names):
    held, chosen = slide.copy(), np.arange(200) < 120
    sagefm.tl.impute(held, model, names[:1], region=chosen, scale="counts_per_10k")
    ((left, right),) = sagefm.pl.imputed(held)
    counts = np.asarray(held[:, names[0]].X.todense()).ravel()
    library = np.asarray(held.X.sum(axis=1)).ravel()
    to_median = np.median(library) / library
    np.testing.assert_allclose(
        values(left)[chosen], np.log1p(counts * to_median)[chosen], rtol=1e-5
    )
    per_10k = held.obsm["sagefm_imputed"][names[0]] / 1e4 * np.median(library)
    np.testing.assert_allclose(values(right)[chosen], np.log1p(per_10k)[chosen], rtol=1e-5)
    for panel in (left, right):
        assert np.isnan(values(panel)[~chosen]).all()


def test_a_gene_that_never_varies_is_drawn_too(slide, model, names):
    held = slide.copy()
    matrix = held.X.tolil()
    matrix[:, held.var_names.get_loc(names[0])] = 0
    held.X = matrix.tocsr()
    sagefm.tl.impute(held, model, names[:1])
    ((_, right),) = sagefm.pl.imputed(held)
    assert right.get_title().endswith("r unknown")
    right.figure.canvas.draw()


def test_it_is_saved(filled, tmp_path):
    sagefm.pl.imputed(filled, save=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 20_000
    assert not plt.get_fignums()


def test_mistakes_are_named(filled, slide, names):
    with pytest.raises(InputError, match=r"run sagefm\.tl\.impute first"):
        sagefm.pl.imputed(slide)
    with pytest.raises(InputError, match="NOT2A: was not imputed; the imputed genes are"):
        sagefm.pl.imputed(filled, ["NOT1A", "NOT2A"])
    with pytest.raises(InputError, match="7 genes: name 1 to 6"):
        sagefm.pl.imputed(filled, names[:7])
    with pytest.raises(InputError, match="0 genes"):
        sagefm.pl.imputed(filled, [])
    two = ad.concat({"a": filled, "b": filled}, label="slide", index_unique="-")
    two.uns["sagefm"] = filled.uns["sagefm"]
    with pytest.raises(InputError, match="several slides in one object"):
        sagefm.pl.imputed(two, names[:1])
