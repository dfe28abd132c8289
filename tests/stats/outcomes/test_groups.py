"""Risk groups and calibration, against lifelines."""

import warnings

import numpy as np
import pytest

from sagefm.stats.outcomes import (
    FeatureSet,
    NumberTarget,
    calibration,
    evaluate_sets,
    kaplan_meier,
    log_rank,
    risk_groups,
)


def test_log_rank_is_that_of_lifelines(targets):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifelines.statistics import logrank_test
    target = targets["survival"]
    rng = np.random.default_rng(0)
    high = rng.random((3, 40)) < 0.4
    high[2] = True
    orders = target.permuted(2, 0)
    z = log_rank(target, high, orders)
    for row in (0, 1):
        times, events = target.times[orders[row]], target.events[orders[row]]
        one, other = high[row], ~high[row]
        expected = logrank_test(times[one], times[other], events[one], events[other])
        assert z[row] ** 2 == pytest.approx(expected.test_statistic)
    assert z[2] == 0


def test_patients_of_high_risk_die_earlier(targets, informative, noise):
    target = targets["survival"]
    result = evaluate_sets(target, [informative, noise], n_permutations=49)
    found = risk_groups(target, result, "informative")
    assert found.z > 2
    assert found.p <= 0.05
    assert found.n_low + found.n_high == 40
    at = found.curves.groupby("group").apply(
        lambda curve: curve[curve["time"] <= np.median(target.times)]["survival"].iloc[-1],
        include_groups=False,
    )
    assert at["high"] < at["low"]
    assert risk_groups(target, result, "noise").p > 0.05


def test_a_curve_counts_patients_at_risk(targets):
    target = targets["survival"]
    curves = kaplan_meier(target, np.repeat(["a", "b"], 20))
    for name, rows in (("a", slice(0, 20)), ("b", slice(20, 40))):
        curve = curves[curves["group"] == name]
        for time, at_risk in zip(curve["time"], curve["at_risk"], strict=True):
            assert at_risk == (target.times[rows] >= time).sum()
        assert curve["events"].sum() == target.events[rows].sum()
        assert curve["survival"].is_monotonic_decreasing
        assert (curve["low"] <= curve["survival"]).all()


@pytest.mark.parametrize("kind", ["classes", "three classes", "ordinal", "number", "survival"])
def test_predictions_are_compared_with_outcomes(kind, targets, informative, noise):
    target = targets[kind]
    table = calibration(target, informative)
    assert (table.groupby("class")["n_patients"].sum() == 40).all()
    assert (table["low"] <= table["observed"] + 1e-9).all()
    assert (table["observed"] <= table["high"] + 1e-9).all()
    for name, rows in table.groupby("class"):
        assert rows["predicted"].is_monotonic_increasing
        if name != "b":  # the one in the middle of three, which a line cannot single out
            assert rows["observed"].iloc[0] < rows["observed"].iloc[-1]
            assert table.attrs["slope"][name] > 0.3
    if "classes" in kind:
        assert table.attrs["brier"] < table.attrs["brier_of_frequencies"]
        assert calibration(target, noise).attrs["brier"] > table.attrs["brier"]


def test_predictions_of_many_patients_have_the_right_size():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    target = NumberTarget("y", np.ones(300, bool), 3 + x[:, 0] + rng.normal(size=300))
    table = calibration(target, FeatureSet("x", ["a", "b"], x))
    assert table.attrs["slope"][""] == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(table["predicted"], table["observed"], atol=0.3)
