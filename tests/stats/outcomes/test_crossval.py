"""Concordance, folds and permutations, against lifelines and scikit-learn."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sagefm.stats.outcomes import NumberTarget, SurvivalTarget
from sagefm.stats.outcomes.crossval import (
    Pairs,
    bootstrap,
    concordance_interval,
    cross_validate,
    draw_folds,
)

KINDS = ["classes", "three classes", "ordinal", "number", "survival"]
small = st.integers(0, 4)
patients = st.lists(st.tuples(small, st.booleans(), small), min_size=3, max_size=12)


def index_of_lifelines(times, events, risk):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifelines.utils import concordance_index
    return concordance_index(times, -risk, events)


@settings(max_examples=60, deadline=None)
@given(patients)
def test_concordance_is_that_of_lifelines_with_ties(rows):
    times, events, risk = (np.array(column) for column in zip(*rows, strict=True))
    target = SurvivalTarget("s", np.ones(len(rows), bool), times + 0.0, events, "t", "e")
    if target.signs.any():
        expected = index_of_lifelines(times, events, risk.astype(float))
        assert target.score(risk + 0.0) == pytest.approx(expected)


def test_concordance_of_classes_is_the_area(targets):
    two, three = targets["classes"], targets["three classes"]
    p = np.random.default_rng(0).normal(size=(40, 3)).round(1)
    assert two.score(p[:, 0]) == pytest.approx(roc_auc_score(two.codes, p[:, 0]))
    probabilities = three.probabilities(p)
    areas = [roc_auc_score(three.codes == k, probabilities[:, k]) for k in range(3)]
    assert three.score(p) == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("kind", KINDS)
def test_a_permutation_is_scored_as_if_it_were_the_truth(kind, targets, informative):
    target = targets[kind]
    orders, folds = target.permuted(2, 5), draw_folds(target.n_patients, 5)
    together = cross_validate(target, informative.reducer(target), orders, folds)
    order = orders[2]
    names = {"times", "events", "codes", "values"} & set(vars(target))
    shuffled = replace(target, **{name: getattr(target, name)[order] for name in names})
    alone = cross_validate(shuffled, informative.reducer(shuffled), orders[:1], folds)
    assert alone.concordance[0] == pytest.approx(together.concordance[2])
    np.testing.assert_allclose(alone.risks[0], together.risks[2], atol=1e-5)
    assert together.pairs.concordance == pytest.approx(together.concordance[0])


def test_a_patient_has_no_part_in_the_fits_that_predict_it(targets, informative):
    target = targets["number"]
    changed = target.values.copy()
    changed[7] += 100
    folds, orders = draw_folds(target.n_patients, 0), target.permuted(0, 0)
    before = cross_validate(target, informative.reducer(target), orders, folds)
    other = NumberTarget("dose", target.known, changed)
    after = cross_validate(other, informative.reducer(other), orders, folds)
    assert before.risks[0, 7] == pytest.approx(after.risks[0, 7])
    assert np.abs(before.risks[0] - after.risks[0]).max() > 1


def test_without_a_signal_half_of_the_pairs_are_in_order(targets, noise):
    """In a leave-one-out it would be fewer."""
    target = targets["classes"]
    orders = target.permuted(150, 0)
    folds = draw_folds(target.n_patients, 0)
    result = cross_validate(target, noise.reducer(target), orders, folds)
    assert result.concordance[1:].mean() == pytest.approx(0.5, abs=0.025)
    assert result.widening > 1


def test_permutations_within_strata(targets):
    strata = np.arange(40) % 4
    orders = targets["number"].permuted(20, 0, strata)
    assert (strata[orders] == strata).all()
    assert (np.sort(orders, axis=1) == np.arange(40)).all()
    assert len(np.unique(orders, axis=0)) == 21


def test_bootstrap_draws_within_blocks_and_repeats_patients(targets):
    target = targets["classes"]
    draws = bootstrap(target.blocks, 0, 50)
    for code in (0, 1):
        assert (draws[:, target.codes == code].sum(axis=1) == 20).all()
    risk = np.random.default_rng(0).normal(size=40)
    signs = np.triu(target.signs[0]).astype(float)
    pairs = Pairs((signs * np.sign(risk[:, None] - risk))[None], np.abs(signs)[None])
    rows = np.repeat(np.arange(40), draws[3].astype(int))
    expected = roc_auc_score(target.codes[rows], risk[rows])
    assert pairs.of_draws(draws)[3] == pytest.approx(expected)
    low, high = concordance_interval(target, pairs, 0)
    wider = concordance_interval(target, pairs, 0, 1.5)
    assert wider[0] < low < pairs.concordance < high < wider[1]
    none = pairs.within(np.arange(40))
    assert np.isnan(none.concordance)


def test_folds_have_all_patients_and_equal_sizes():
    folds = draw_folds(23, 1)
    assert folds.shape == (5, 23)
    for of_draw in folds:
        assert set(np.bincount(of_draw)) <= {4, 5}
    assert len(np.unique(folds, axis=0)) == 5
