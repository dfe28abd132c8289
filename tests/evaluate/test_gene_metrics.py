"""Scores of genes against scipy, and against a case whose best possible score is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sagefm.stats.genes import GeneTally, MaskedTruth, pearson_p
from sagefm.stats.poisson import log1p_mean, log1p_variance, rate_of


def case(seed, n_spots=40, n_genes=6):
    chance = np.random.default_rng(seed)
    counts = chance.poisson(chance.gamma(1, 2, (n_spots, n_genes))).astype(np.float32)
    counts[:, 0] = 3  # constant
    hidden = chance.random(counts.shape) < 0.4
    guess = np.maximum(np.log1p(counts) + chance.normal(0, 0.5, counts.shape), 0)
    return counts, hidden, guess.astype(np.float32), chance.integers(1, 500, n_spots)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_sums_give_what_scipy_gives(seed):
    counts, hidden, guess, depth = case(seed)
    sums = MaskedTruth(counts, hidden, depth).score(guess)
    truth = np.log1p(counts).astype(np.float64)
    for gene in range(counts.shape[1]):
        at = hidden[:, gene]
        t, p, d = truth[at, gene], guess[at, gene].astype(np.float64), np.log1p(depth[at])
        assert sums.n[gene] == at.sum()
        assert sums.squared_error[gene] == pytest.approx(((t - p) ** 2).sum(), abs=1e-5)
        if len(t) < 4 or np.ptp(t) == 0:
            continue
        assert sums.pearson()[gene] == pytest.approx(stats.pearsonr(t, p)[0], abs=1e-5)
        residuals = [y - np.polyval(np.polyfit(d, y, 1), d) for y in (t, p)]
        assert sums.depth_removed()[gene] == pytest.approx(stats.pearsonr(*residuals)[0], abs=1e-4)
    assert np.isnan(sums.pearson()[0])
    assert sums.constant[0]


def test_deviance_is_that_of_a_poisson_count():
    counts, hidden, _, depth = case(1)
    rate = np.full(counts.shape, 1.5, dtype=np.float32)
    sums = MaskedTruth(counts, hidden, depth).score(log1p_mean(rate), rate)
    ratio = stats.poisson.logpmf(counts, np.maximum(counts, 1e-12)) - stats.poisson.logpmf(
        counts, rate
    )
    np.testing.assert_allclose(sums.deviance, 2 * np.where(hidden, ratio, 0).sum(0), rtol=1e-5)


def test_no_predictor_beats_the_one_that_knows_the_rates():
    chance = np.random.default_rng(2)
    rate = chance.gamma(2, 1, (4000, 5)).astype(np.float32)
    counts = chance.poisson(rate).astype(np.float32)
    hidden = MaskedTruth(counts, np.ones(counts.shape, dtype=bool), np.ones(4000))

    def mse(guess):
        return float(hidden.score(guess).squared_error.sum() / hidden.n)

    floor = hidden.mean(log1p_variance(rate))
    assert mse(log1p_mean(rate)) == pytest.approx(floor, rel=0.05)
    assert mse(log1p_mean(rate)) < mse(np.log1p(rate)) < mse(np.zeros_like(rate))


@pytest.mark.parametrize("rate", [0.0, 0.7, 999.0, 1001.0, *np.geomspace(1e-6, 1e6, 25)])
def test_log1p_of_poisson_counts(rate):
    reach = 15 * np.sqrt(rate) + 30
    k = np.arange(max(0, int(rate - reach)), int(rate + reach))
    share = stats.poisson.pmf(k, rate)
    mean = share @ np.log1p(k)
    assert log1p_mean(rate) == pytest.approx(mean, abs=1e-5)
    assert log1p_variance(rate) == pytest.approx(share @ np.log1p(k) ** 2 - mean**2, abs=1e-5)
    assert rate_of(mean) == pytest.approx(rate, rel=1e-4, abs=1e-5)


def test_p_values_are_those_of_pearsonr():
    chance = np.random.default_rng(3)
    x, y = chance.normal(size=(2, 30))
    found = stats.pearsonr(x, y)
    assert pearson_p(found[0], 30) == pytest.approx(found[1])
    assert np.isnan(pearson_p(np.nan, 30))
    assert pearson_p(1.0, 30) == 0


def test_sums_of_slides_add_up():
    counts, hidden, guess, depth = case(4)
    whole = MaskedTruth(counts, hidden, depth).score(guess)
    halves = [
        MaskedTruth(counts[part], hidden[part], depth[part]).score(guess[part])
        for part in (slice(0, 15), slice(15, None))
    ]
    tally = GeneTally.begin(6)
    for half in halves:
        tally.add(half, np.arange(6))
    np.testing.assert_allclose(tally.pooled.pearson(), whole.pearson(), atol=1e-9)
    np.testing.assert_allclose(tally.pooled.deviance, whole.deviance)
