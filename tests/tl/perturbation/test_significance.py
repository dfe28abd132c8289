"""What effects are held against: matches, correlations, and p values that keep their promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from sagefm.tl.perturbation import _matching, _significance


def test_the_nearest_in_rank_are_matched():
    features = np.array([[1.0, 10], [2, 20], [3, 30], [900, 40], [1e6, 50]])
    found = _matching.match_genes(features, np.array([1]), np.array([0, 2, 3, 4]), 2)
    assert set(found[0]) == {0, 2}
    assert _matching.match_genes(features, np.array([1]), np.array([0, 2]), 9).shape == (1, 2)


def test_many_genes_share_the_nearest():
    rng = np.random.default_rng(0)
    features, candidates = rng.normal(size=(400, 2)), np.arange(50, 400)
    found = _matching.match_genes(features, np.arange(50), candidates, 10, 60)
    assert found.shape == (50, 10)
    assert len(np.unique(found)) <= 60
    # The nearest of all is among those that are shared.
    first = _matching.match_genes(features, np.arange(50), candidates, 1)
    assert set(first[:, 0]) <= set(found.ravel())
    few = _matching.match_genes(features, np.arange(2), candidates, 10, 5)
    assert len(np.unique(few)) >= 10


def test_those_that_go_along_are_alike():
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(300, 6)))
    x[:, 4] = x[:, 0] + 0.1 * x[:, 4]
    x[:, 5] = 2.0  # constant: correlates with nothing
    r = np.corrcoef(x[:, :5].T)[0]
    found = _matching.coexpressed_genes(
        sparse.csc_matrix(x), np.array([0]), np.array([1, 2, 3, 4, 5]), 5
    )
    assert found[0].tolist() == [*(1 + np.argsort(-r[1:], kind="stable")), 5]


def test_one_left_out_is_what_a_loop_gives():
    rng = np.random.default_rng(1)
    null, effect = rng.normal(2, 3, (4, 12)), rng.normal(size=4)
    null[1, 3] = np.nan
    found = _significance.NullScores.of(effect, null)
    sizes = []
    for own, z, row in zip(effect, found.z, null, strict=True):
        row = row[~np.isnan(row)]
        assert z == pytest.approx((own - row.mean()) / row.std())
        for i in range(len(row)):
            rest = np.delete(row, i)
            sizes.append(abs((row[i] - rest.mean()) / rest.std()))
    np.testing.assert_allclose(found.null, np.sort(sizes))
    p = [(1 + (np.array(sizes) >= abs(z)).sum()) / (1 + len(sizes)) for z in found.z]
    np.testing.assert_allclose(found.p(), p)


def test_a_null_that_does_not_move_says_nothing():
    found = _significance.NullScores.of(np.array([0.0, 1.0]), np.zeros((2, 5)))
    assert found.p().tolist() == [1.0, 1.0]
    missing = _significance.NullScores.of(
        np.array([np.nan, 1.0]), np.array([[1.0, 2, 3], [1, 2, 4]])
    )
    assert np.isnan(missing.p()[0])
    assert missing.p()[1] > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_p_is_uniform_where_ligands_are_like_the_others(seed, n_genes):
    rng = np.random.default_rng(seed)
    # Each target has a center and a scale of its own, which must not matter.
    center, scale = rng.normal(size=(150, 1)), rng.lognormal(size=(150, 1))
    effects = center + scale * rng.standard_t(5, size=(150, n_genes + 1))
    p = _significance.NullScores.of(effects[:, 0], effects[:, 1:]).p()
    assert stats.kstest(p, "uniform").pvalue > 1e-5
