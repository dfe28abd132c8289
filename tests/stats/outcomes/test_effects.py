"""Effects of single features, against lifelines, scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.linear_model import LogisticRegression
from tests.stats.outcomes.test_fits import lifelines_fit

from sagefm.stats.outcomes import FeatureSet, effects
from sagefm.stats.outcomes.effects import score_test


def scaled(one):
    return (one.values - one.values.mean(axis=0)) / one.values.std(axis=0, ddof=1)


def test_slopes_and_p_of_numbers(targets, informative):
    target = targets["number"]
    table = effects(target, informative)
    assert table["feature"].tolist() == informative.features
    for i, x in enumerate(scaled(informative).T):
        expected = linregress(x, target.values)
        assert table["p"][i] == pytest.approx(expected.pvalue)
        assert table["effect"][i] == pytest.approx(expected.slope * 39 / 40)  # the penalty
        width = (table["high"][i] - table["low"][i]) / (2 * 1.96)
        assert width == pytest.approx(expected.stderr, rel=0.05)
    assert (table["q"] >= table["p"]).all()
    assert table.attrs["effect"] == "slope"


def test_hazard_ratios_are_those_of_lifelines(targets, informative):
    target = targets["survival"]
    table = effects(target, informative)
    for i, x in enumerate(scaled(informative).T[:4]):
        model = lifelines_fit(x[:, None], target.times, target.events, 1.0)
        assert table["effect"][i] == pytest.approx(model.params_.iloc[0], abs=1e-6)
        free = lifelines_fit(x[:, None], target.times, target.events, 0.0)
        p = free.summary["p"].iloc[0]
        assert np.log10(table["p"][i]) == pytest.approx(np.log10(p), abs=0.3 - 0.5 * np.log10(p))
        error = (table["high"][i] - table["low"][i]) / (2 * 1.96)
        assert error == pytest.approx(free.standard_errors_.iloc[0], rel=0.15)


def test_odds_ratios_are_those_of_scikit_learn(targets, informative):
    target = targets["classes"]
    table = effects(target, informative)
    for i, x in enumerate(scaled(informative).T):
        model = LogisticRegression(C=1, tol=1e-10).fit(x[:, None], target.codes)
        assert table["effect"][i] == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert (table["class"] == "high").all()
    many = effects(targets["three classes"], informative)
    assert many["class"].value_counts().to_dict() == {"a": 12, "b": 12, "c": 12}


def test_constant_and_missing_features(targets):
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[:, 1] = 4
    values[:, 2] = np.nan
    for target in targets.values():
        table = effects(target, FeatureSet("x", ["a", "b", "c"], values))
        assert (table.loc[table["feature"] != "a", "p"] == 1).all()
        assert (table.loc[table["feature"] != "a", "effect"] == 0).all()
        assert np.isfinite(table.loc[table["feature"] == "a", "p"]).all()


def test_p_has_the_moments_of_permutations_within_strata():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [10, 25, 1])
    x = rng.normal(size=(36, 1)) + 3 * strata[:, None]
    residuals = rng.normal(size=36) + 3 * strata
    orders = np.arange(36) * np.ones((4000, 1), int)
    for order in orders:
        for code in (0, 1):
            rows = np.flatnonzero(strata == code)
            order[rows] = rng.permutation(rows)
    sums = residuals[orders] @ x[:, 0]
    distance = abs(residuals @ x[:, 0] - sums.mean())
    by_permutation = (np.abs(sums - sums.mean()) >= distance).mean()
    assert score_test(residuals, x, strata)[0] == pytest.approx(by_permutation, abs=0.03)
    assert score_test(residuals, x, 0 * strata)[0] < 0.001
