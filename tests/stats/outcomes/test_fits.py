"""Fits of many labelings at once, against lifelines and scikit-learn."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from sagefm.stats.outcomes import ClassTarget
from sagefm.stats.outcomes.cox import baseline_hazard, cox_information, fit_cox
from sagefm.stats.outcomes.linear import fit_ridge
from sagefm.stats.probe import fit_probes

N = 45


def samples(seed, *, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 3))
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)  # lifelines penalizes scaled weights
    times = rng.exponential(np.exp(-x[:, 0]))
    return x, np.ceil(4 * times) if ties else times, rng.random(N) < 0.6


def lifelines_fit(x, times, events, ridge):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifelines import CoxPHFitter

        table = pd.DataFrame(x, columns=["x0", "x1", "x2"][: x.shape[1]])
        table = table.assign(t=times, e=events)
        return CoxPHFitter(penalizer=ridge / len(x), l1_ratio=0).fit(
            table, "t", "e", fit_options={"precision": 1e-12, "max_steps": 100}
        )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("ridge", [1.0, 6.0])
def test_cox_is_that_of_lifelines(ties, ridge):
    x, times, events = samples(0, ties=ties)
    expected = lifelines_fit(x, times, events, ridge).params_.to_numpy()
    order = np.random.default_rng(1).permutation(N)
    fits = fit_cox(x, np.stack([times[order], times]), np.stack([events[order], events]), ridge)
    np.testing.assert_allclose(fits.weights[1, 0], expected, atol=1e-6)
    assert np.abs(fits.weights[0, 0] - expected).max() > 0.05
    np.testing.assert_allclose(fits(x)[1, :, 0], x @ expected, atol=1e-5)


def test_standard_error_and_baseline_of_cox_are_those_of_lifelines():
    x, times, events = samples(2, ties=True)
    model = lifelines_fit(x[:, :1], times, events, 0.0)
    slope = model.params_.to_numpy()
    information = cox_information(x[:, :1].T, times, events, slope)
    error = model.standard_errors_.to_numpy()
    np.testing.assert_allclose(1 / np.sqrt(information), error, rtol=1e-5)
    at = float(np.median(times))
    hazard = baseline_hazard(x[:, 0] * slope[0], times, events, at)
    expected = model.baseline_cumulative_hazard_.loc[:at].iloc[-1, 0]
    assert hazard == pytest.approx(expected, rel=1e-6)


def test_cox_of_a_feature_that_separates_is_finite():
    x = np.linspace(-1, 1, N)[:, None]
    times = np.linspace(2, 1, N)
    fits = fit_cox(1e3 * x, times[None], np.ones((1, N), bool))
    assert np.isfinite(fits.weights).all()
    assert fits.weights[0, 0, 0] > 0


def test_logistic_regression_is_that_of_scikit_learn_with_frequencies(targets, factors):
    target = targets["classes"].subset(np.arange(len(factors)) > 6)
    x = factors[target.known]
    fits = target.fit(x, np.arange(len(x))[None])
    model = LogisticRegression(C=1, class_weight="balanced", tol=1e-10).fit(x, target.codes)
    np.testing.assert_allclose(fits.weights[0], model.coef_, atol=1e-5)
    sizes = np.bincount(target.codes)
    expected = model.intercept_[0] + np.log(sizes[1] / sizes[0])
    assert fits.intercepts[0, 0] == pytest.approx(expected, abs=1e-5)


def test_probabilities_have_the_frequency_of_their_class():
    rng = np.random.default_rng(0)
    codes = (rng.random(400) < 0.2).astype(np.int64)
    target = ClassTarget("y", np.ones(400, bool), ["no", "yes"], codes)
    x = rng.normal(size=(400, 2)) + codes[:, None]
    p = expit(target.fit(x, np.arange(400)[None])(x))[0, :, 0]
    assert p.mean() == pytest.approx(codes.mean(), abs=0.05)


def test_ridge_regression_is_that_of_scikit_learn():
    x, values, _ = samples(3, ties=False)
    fits = fit_ridge(x + 5, np.stack([values, values[::-1]]))
    for labeling, y in enumerate((values, values[::-1])):
        model = Ridge(alpha=1).fit(x + 5, y)
        np.testing.assert_allclose(fits(x + 5)[labeling, :, 0], model.predict(x + 5))


@pytest.mark.parametrize("kind", ["classes", "three classes", "number", "survival"])
def test_features_of_their_own_give_what_one_fit_each_gives(kind, targets):
    target = targets[kind]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, target.n_patients, 2))
    orders = target.permuted(2, 0)
    together = target.fit(x, orders)
    for number in range(3):
        alone = target.fit(x[number], orders[number : number + 1])
        np.testing.assert_allclose(together.weights[number], alone.weights[0], atol=1e-6)
        np.testing.assert_allclose(together.intercepts[number], alone.intercepts[0], atol=1e-6)


def test_probes_of_permutations_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 3)), rng.integers(0, 2, (4, 20))
    labels[:, :2] = 0, 1
    np.testing.assert_allclose(
        fit_probes(x, labels, 2).weights[2], fit_probes(x, labels[2:3], 2).weights[0], atol=1e-6
    )
