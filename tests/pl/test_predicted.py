"""Measured and predicted genes on one scale."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError
from sagefm.pp import simulate
from sagefm.pp.neighborhood import nearest


@pytest.fixture(scope="module")
def slide():
    return simulate(90, seed=5)


@pytest.fixture(scope="module")
def genes(slide):
    order = np.argsort(-np.asarray(slide.X.sum(axis=0)).ravel())
    return [str(slide.var_names[i]) for i in order[:2]]


@pytest.fixture(scope="module")
def guess(slide, genes):
    noise = np.random.default_rng(0).normal(0, 0.3, (90, 2))
    return np.maximum(np.log1p(slide[:, genes].X.toarray()) + noise, 0)


def values(panel):
    return np.ma.filled(panel.collections[0].get_array(), np.nan)


def to_median(slide):
    library = np.asarray(slide.X.sum(axis=1)).ravel()
    return np.median(library) / library


def test_all_are_scaled_to_the_median_library_size(slide, genes, guess):
    rows = sagefm.pl.predicted(slide, {"model": guess}, genes, neighbor_mean=True)
    assert [len(row) for row in rows] == [3, 3]
    scaled = np.log1p(slide[:, genes].X.toarray() * to_median(slide)[:, None])
    around = scaled[nearest(slide.obsm["spatial"])[:, 1:]].mean(axis=1)
    predicted = np.log1p(np.expm1(guess) * to_median(slide)[:, None])
    for i, row in enumerate(rows):
        for panel, wanted in zip(row, (scaled, predicted, around), strict=True):
            np.testing.assert_allclose(values(panel), wanted[:, i], rtol=1e-5)
    r = [np.corrcoef(scaled[:, 0], other[:, 0])[0, 1] for other in (predicted, around)]
    titles = [panel.get_title().strip() for panel in rows[0]]
    assert titles == ["measured", f"model\nr = {r[0]:.2f}", f"neighbor mean\nr = {r[1]:.2f}"]
    assert [row[0].get_ylabel() for row in rows] == genes
    assert "median library size" in rows[0][0].figure.get_supxlabel()


def test_library_size_alone_gives_a_flat_map(slide, genes):
    """What is predicted from the library size has no structure once that is taken out."""
    profile = np.asarray(slide[:, genes].X.sum(axis=0)).ravel() / slide.X.sum()
    library = np.asarray(slide.X.sum(axis=1)).ravel()
    from_depth = np.log1p(np.outer(library, profile))
    ((_, panel), _) = sagefm.pl.predicted(slide, {"library size": from_depth}, genes)
    assert np.ptp(values(panel)) < 1e-5


def test_a_gene_has_one_scale_that_ends_where_its_predictions_do(slide, genes, guess):
    rows = sagefm.pl.predicted(slide, {"one": guess, "two": guess / 2}, genes)
    for row in rows:
        ends = np.percentile(np.r_[values(row[1]), values(row[2])], [1, 99])
        assert [panel.collections[0].get_clim() for panel in row] == [
            pytest.approx(tuple(ends))
        ] * 3
    flat, _ = sagefm.pl.predicted(slide, {"flat": np.zeros((90, 2))}, genes)
    ends = np.percentile(np.r_[values(flat[0]), np.zeros(90)], [1, 99])
    assert flat[0].collections[0].get_clim() == pytest.approx(tuple(ends))
    assert flat[1].get_title().endswith("r = nan")


def test_a_table_is_matched_by_name(slide, genes, guess):
    table = pd.DataFrame(guess[:, ::-1], index=slide.obs_names, columns=genes[::-1])
    ((_, own),) = sagefm.pl.predicted(slide, {"model": guess[:, :1]}, genes[0])
    ((_, named),) = sagefm.pl.predicted(slide, {"model": table}, genes[0])
    assert np.array_equal(values(own), values(named))


def test_sections_are_rows_of_a_gene(slide, genes, guess):
    held = slide.copy()
    held.obs["section"] = np.where(np.arange(90) < 40, "left", "right")
    held.uns["sagefm"] = {"read": {"slide_key": "section"}}
    rows = sagefm.pl.predicted(held, {"model": guess[:, :1]}, genes[:1], neighbor_mean=True)
    assert [len(values(row[0])) for row in rows] == [40, 50]
    assert [row[0].get_ylabel() for row in rows] == [f"{genes[0]}, left", f"{genes[0]}, right"]
    assert len({panel.collections[0].get_clim() for row in rows for panel in row}) == 1


def test_a_spot_without_counts_is_gray(slide, genes, guess):
    held = slide.copy()
    keep = np.ones(90)
    keep[3] = 0
    held.X = held.X.multiply(keep[:, None]).tocsr()
    for panel in sagefm.pl.predicted(held, {"model": guess}, genes)[0]:
        assert np.flatnonzero(np.isnan(values(panel))).tolist() == [3]


def test_it_is_as_wide_as_a_column_and_saved(slide, genes, guess, tmp_path):
    rows = sagefm.pl.predicted(slide, {"model": guess}, genes, neighbor_mean=True)
    assert rows[0][0].figure.get_size_inches()[0] * 25.4 <= 85.1
    sagefm.pl.predicted(slide, {"model": guess}, genes, save=tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_mistakes_are_named(slide, genes, guess):
    for predictions, names, said in (
        ({"model": guess}, ["NOT1A"], "NOT1A: the slide has no such gene"),
        ({"model": guess}, genes[:1], "model: is 90 × 2; give 90 spots × 1 genes"),
        ({"model": pd.DataFrame({"x": np.zeros(90)})}, genes, "model: has no column"),
        ({}, [], "genes: there are none"),
    ):
        with pytest.raises(InputError, match=said):
            sagefm.pl.predicted(slide, predictions, names)
