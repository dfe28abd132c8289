import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from sagefm.evaluate.metrics import classes
from sagefm.stats.outcomes.score import auroc

pairs = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1)


def random_scores(seed, n=60, n_classes=3, decimals=8):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, n_classes)).round(decimals)
    return rng.permutation(np.arange(n) % n_classes), scores


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_like_sklearn_over_the_classes_of_the_truth(pairs):
    truth, predicted = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = sk.balanced_accuracy_score(truth, predicted)
        f1 = sk.f1_score(truth, predicted, labels=np.unique(truth), average=None, zero_division=0)
    found = classes.per_class(truth, predicted)
    assert classes.accuracy(truth, predicted) == pytest.approx(sk.accuracy_score(truth, predicted))
    assert classes.balanced_accuracy(truth, predicted) == pytest.approx(balanced)
    assert classes.macro_f1(truth, predicted) == pytest.approx(f1.mean())
    assert found["f1"].tolist() == pytest.approx(f1)
    assert found.index.tolist() == sorted(set(truth))
    assert found["n"].sum() == len(truth)


def test_one_class_and_one_that_never_occurs():
    found = classes.per_class(["a"] * 4, ["a", "a", "b", "b"])
    assert found.loc["a"].tolist() == [0.5, pytest.approx(2 / 3), 4]
    assert list(found.index) == ["a"]
    assert classes.macro_f1(["a", "b"], ["c", "c"]) == 0


def test_nothing_is_missing():
    for metric in (classes.accuracy, classes.balanced_accuracy, classes.macro_f1):
        assert np.isnan(metric([], []))
    assert np.isnan(classes.calibration_error([], []))
    assert np.isnan(classes.calibration_error([True], [np.nan]))


def test_calibration():
    assert classes.calibration_error([True] * 5, [1.0] * 5) == 0
    assert classes.calibration_error([False] * 5, [1.0] * 5) == 1
    assert classes.calibration_error([True, False], [0.5, 0.5]) == 0
    assert classes.calibration_error([True, True, False, False], [0.9, 0.9, 0.1, 0.1]) == (
        pytest.approx(0.1)
    )
    # Gaps within a bin cancel, gaps of several bins do not.
    assert classes.calibration_error([True, False], [0.99, 0.01]) == pytest.approx(0.01)
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    assert classes.calibration_error(rng.random(50_000) < confidence, confidence) < 0.01
    assert classes.calibration_error(rng.random(50_000) < confidence**2, confidence) > 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from([0, 1, 8]))
def test_area_like_sklearn_with_ties(seed, n_classes, decimals):
    truth, scores = random_scores(seed, n_classes=n_classes, decimals=decimals)
    expected = [sk.roc_auc_score(truth == k, scores[:, k]) for k in range(n_classes)]
    assert auroc(truth, scores) == pytest.approx(np.mean(expected))


def test_area_of_two_classes_is_that_of_one():
    truth, scores = random_scores(1, n_classes=2)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(truth, probabilities[:, 1])
    assert auroc(truth, probabilities) == pytest.approx(expected)


def test_area_of_ties_and_of_the_truth():
    truth, scores = random_scores(2)
    assert auroc(truth, np.ones_like(scores)) == 0.5
    assert auroc(truth, np.eye(3)[truth]) == 1
