"""Scores of sets of features, what they add to others, and how many patients are needed."""

import numpy as np
import pytest

from sagefm import InputError
from sagefm.stats.outcomes import (
    ClassTarget,
    FeatureSet,
    NumberTarget,
    SurvivalTarget,
    beyond,
    evaluate_sets,
    learning_curve,
    needed_patients,
)
from sagefm.stats.outcomes.evaluation import adjusted, p_value

KINDS = ["classes", "three classes", "ordinal", "number", "survival"]


@pytest.fixture(scope="module", params=KINDS)
def evaluated(request, targets, informative, noise):
    target = targets[request.param]
    return target, evaluate_sets(target, [informative, noise], n_permutations=49, seed=1)


def test_features_with_a_signal_are_found_and_others_are_not(evaluated):
    target, result = evaluated
    scores = result.scores.set_index("set")
    assert scores["p"]["informative"] <= scores["p_adjusted"]["informative"] <= 0.05
    assert scores["p"]["noise"] > 0.05
    assert scores["concordance"]["informative"] > 0.7
    assert (scores["low"] < scores["concordance"]).all()
    assert (scores["concordance"] < scores["high"]).all()
    assert (scores["n_events"] == target.n_events).all()
    assert scores["n_components"]["informative"] == min(target.n_events // 5, 10)
    assert result.permuted["noise"].shape == (49,)
    reached = (result.permuted["noise"] >= scores["concordance"]["noise"] - 1e-12).sum()
    assert scores["p"]["noise"] == pytest.approx((1 + reached) / 50)


def test_weights_of_features_give_the_prediction_of_the_fit(evaluated, informative):
    target, result = evaluated
    fit = result.fits["informative"]
    assert fit.weights.shape == (50, len(target.outputs), 12)
    for labeling in (0, 49):
        by_weights = (informative.values - fit.center) @ fit.weights[labeling].T
        expected = target.fit(fit.fold.features, result.labelings[labeling][None])
        np.testing.assert_allclose(
            by_weights + fit.intercepts[labeling], expected(fit.fold.features)[0], atol=1e-5
        )


def test_predictions_of_patients(evaluated):
    target, result = evaluated
    table = result.risks["informative"]
    assert len(table) == 40
    assert table["held_out"].all()
    if isinstance(target, ClassTarget):
        probabilities = table[[f"probability_{name}" for name in target.classes]]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (table["predicted"] == target.columns()[target.name]).mean() > 0.5
    if len(target.outputs) == 1:
        assert 10 < (table["group"] == "high").sum() < 30
        assert (table["margin"].gt(0) == (table["group"] == "high")).all()
        assert target.score(table["risk"].to_numpy()) > 0.7
    else:
        assert table["risk"].isna().all()


def test_patients_without_an_outcome_are_predicted_and_not_trained_on(targets, informative):
    target = targets["number"]
    known = np.arange(40) >= 8
    fewer = NumberTarget("dose", known, target.values[known])
    result = evaluate_sets(fewer, [informative], n_permutations=1)
    table = result.risks["informative"]
    assert (table["held_out"] == known).all()
    assert np.corrcoef(table["risk"][~known], target.values[~known])[0, 1] > 0.5
    values = informative.values.copy()
    values[~known] += 100
    moved = FeatureSet("informative", informative.features, values)
    scores = evaluate_sets(fewer, [moved], n_permutations=1).scores
    assert scores["concordance"][0] == pytest.approx(result.scores["concordance"][0])


def test_features_that_are_fitted_see_the_training_patients_only(targets):
    target, seen = targets["number"], []

    def fit(training):
        seen.append(training.sum())
        return np.column_stack([training.astype(float), np.arange(40.0)])

    evaluate_sets(target, [FeatureSet("fitted", ["a", "b"], fit=fit)], n_permutations=1)
    assert seen == [32] * 25 + [40]


def test_units_and_missing_values_do_not_matter_unless_the_features_have_one_unit(targets, noise):
    target = targets["number"]
    units = 10.0 ** np.arange(-3, 3)
    values = noise.values * units + 5
    other = FeatureSet("noise", noise.features, values)
    scores = [evaluate_sets(target, [one], n_permutations=1).scores for one in (noise, other)]
    assert scores[0]["concordance"][0] == pytest.approx(scores[1]["concordance"][0])
    values[3, 2], values[:, 4], values[:, 5] = np.nan, np.nan, 7
    assert np.isfinite(evaluate_sets(target, [other], n_permutations=1).scores["low"][0])
    raw = FeatureSet("raw", noise.features, noise.values * units, scaled=False)
    weights = evaluate_sets(target, [raw], n_permutations=1).fits["raw"].weights[0, 0]
    assert np.abs(weights * units)[-1] > 100 * np.abs(weights * units)[0]


def test_the_maximum_over_sets_adjusts_p():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 200))
    same = np.repeat(one, 5, axis=0)
    np.testing.assert_allclose(adjusted(same), p_value(one[0]))
    several = rng.normal(size=(5, 200))
    several[:, 0] = 3.5, 0, 1, 2.5, -1
    z = (several - several.mean(axis=1, keepdims=True)) / several.std(axis=1, keepdims=True)
    p = adjusted(several)
    raw = np.array([p_value(row) for row in several])
    assert p[0] == pytest.approx((z.max(axis=0) >= z[0, 0]).mean())
    without = np.delete(z, 0, axis=0).max(axis=0)
    without[0] = z[3, 0]
    assert p[3] == pytest.approx(max(p[0], (without >= z[3, 0]).mean()))
    assert (p >= raw).all()
    assert (np.argsort(p, kind="stable")[:2] == [0, 3]).all()


def test_too_few_patients_or_events(noise):
    def refused(target):
        with pytest.raises(InputError) as error:
            evaluate_sets(target, [noise])
        return str(error.value)

    everyone = np.ones(40, bool)
    codes = (np.arange(40) < 9).astype(int)
    message = refused(ClassTarget("grade", everyone, ["low", "high"], codes))
    assert "10 patients of each class are needed, but there are 31 low, 9 high" in message
    assert "two classes" in refused(ClassTarget("grade", everyone, ["low"], 0 * codes))
    survival = SurvivalTarget("s", everyone, np.arange(40.0), codes > 0, "months", "dead")
    assert "dead: 10 events are needed, but there are 9 (of 40 patients)" in refused(survival)
    few = np.arange(40) < 19
    message = refused(NumberTarget("dose", few, np.arange(19.0)))
    assert "20 patients with a value are needed, but there are 19" in message
    assert "differ from the most frequent value" in refused(
        NumberTarget("dose", everyone, codes.astype(float))
    )
    with pytest.raises(InputError, match="no features"):
        evaluate_sets(NumberTarget("dose", everyone, np.arange(40.0)), [])
    with pytest.raises(InputError, match="same name"):
        evaluate_sets(NumberTarget("dose", everyone, np.arange(40.0)), [noise, noise])


def test_outcomes_that_differ_by_site_say_nothing_within_sites():
    """Permuted within sites, features that say the site alone are no more than chance."""
    rng = np.random.default_rng(0)
    site = np.repeat([0, 1], 30)
    target = NumberTarget("dose", np.ones(60, bool), 3.0 * site + rng.normal(size=60))
    of_site = FeatureSet("site", ["a"], (site + 0.3 * rng.normal(size=60))[:, None])
    free = evaluate_sets(target, [of_site], n_permutations=99).scores
    within = evaluate_sets(target, [of_site], n_permutations=99, strata=site).scores
    assert free["p"][0] == 0.01
    assert within["p"][0] > 0.05


@pytest.mark.parametrize("kind", ["classes", "number", "survival"])
def test_what_is_added_to_clinical_features(kind, targets, factors, informative, noise):
    target = targets[kind]
    rng = np.random.default_rng(5)
    half = (factors[:, 0] + 2 * rng.normal(size=40))[:, None]
    clinical = FeatureSet("clinical", ["age"], half)
    more = beyond(target, clinical, informative, n_permutations=39)
    assert more.gain > 0.03
    assert more.p <= 0.05
    assert more.low < more.gain < more.high
    alone = evaluate_sets(target, [clinical], n_permutations=1).scores["concordance"][0]
    assert more.concordance - more.gain == pytest.approx(alone)
    none = beyond(target, clinical, noise, n_permutations=19)
    assert none.p > 0.05
    assert none.low < 0


def test_the_same_features_again_add_nothing(targets, informative):
    again = beyond(targets["number"], informative, informative, n_permutations=99)
    assert again.p > 0.05


def test_learning_curve_and_needed_patients(targets, informative, noise):
    curve = learning_curve(targets["number"], informative)
    assert curve["n_patients"].tolist() == [12, 16, 20, 24, 28, 32]
    assert curve["concordance"].iloc[-1] > 0.7
    assert (curve["low"] < curve["concordance"]).all()
    needed = curve.attrs["needed"]
    assert needed["low"] <= needed["n_patients"] <= needed["high"] < 1000
    assert f"about {needed['n_patients']:.0f} patients" in needed["text"]
    nothing = learning_curve(targets["number"], noise).attrs["needed"]
    assert np.isnan(nothing["n_patients"])
    assert "cannot be said" in nothing["text"]


def test_needed_patients_follow_the_formula():
    found = needed_patients(40, 0.6, 0.55, 0.65, 0.08)
    spread = 0.1 / (2 * 1.959964)
    assert found.n_patients == np.ceil(40 * ((1.644854 * 0.08 + 0.841621 * spread) / 0.1) ** 2)
    assert found.low < found.n_patients < found.high
    twice = needed_patients(40, 0.7, 0.65, 0.75, 0.08)
    assert twice.n_patients == pytest.approx(found.n_patients / 4, abs=1)
