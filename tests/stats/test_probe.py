"""Linear probes and networks, against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sagefm.stats.probe import balanced, fit_frequencies, fit_linear, fit_network, fit_probes


def samples(n_classes, n=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.sort(np.r_[np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    return rng.normal(size=(n, 5)) * [0.1, 1, 1, 5, 1] + labels[:, None] + 3, labels


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_probes_are_those_of_scikit_learn(n_classes):
    rng = np.random.default_rng(n_classes)
    x = rng.normal(size=(14, 6)) * [0.01, 1, 1, 5, 20, 1]
    labels = np.stack([rng.permutation(np.arange(14) % n_classes) for _ in range(5)])
    probes = fit_probes(x, labels, n_classes)
    for row, found in zip(labels, probes.probabilities(x), strict=True):
        wanted = LogisticRegression(
            C=1.0, class_weight="balanced", solver="newton-cholesky", tol=1e-9
        ).fit(x, row)
        np.testing.assert_allclose(found, wanted.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_linear_probe_has_the_penalty_weights_and_scaling_that_it_is_given(
    n_classes, standardize
):
    x, labels = samples(n_classes)
    weights = np.random.default_rng(1).random(len(x))
    fitted = fit_linear(x, labels, C=0.1, sample_weights=weights, standardize=standardize)
    scaled = StandardScaler().fit_transform(x) if standardize else x
    wanted = LogisticRegression(C=0.1, max_iter=1000).fit(scaled, labels, weights)
    np.testing.assert_allclose(fitted.probabilities(x), wanted.predict_proba(scaled), atol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_network_is_that_of_scikit_learn(n_classes):
    x, labels = samples(n_classes)
    fitted = fit_network(x, labels, learning_rate=5e-3, max_epochs=9, standardize=True, seed=3)
    network = MLPClassifier(
        (64,), alpha=1e-2, batch_size=32, learning_rate_init=5e-3, max_iter=9, random_state=3
    )
    wanted = make_pipeline(StandardScaler(), network)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        wanted.fit(x, labels)
    np.testing.assert_allclose(fitted.probabilities(x), wanted.predict_proba(x), atol=1e-10)


def test_balanced_weights_make_classes_count_the_same():
    _, labels = samples(3)
    weights = balanced(labels, 3)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(labels, weights=weights), len(labels) / 3)


def test_balanced_weights_find_a_rare_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 12])
    x = rng.normal(size=(312, 3)) + labels[:, None]
    plain, weighted = (
        fit_linear(x, labels, sample_weights=weights) for weights in (None, balanced(labels, 2))
    )
    rare = [fitted.probabilities(x).argmax(axis=1).sum() for fitted in (plain, weighted)]
    assert rare[0] < 12 < rare[1]


def test_frequencies_are_those_of_the_labels():
    fitted = fit_frequencies(np.zeros((4, 2)), np.array([1, 0, 1, 1]))
    assert fitted.probabilities(np.ones((2, 2))).tolist() == [[0.25, 0.75]] * 2
