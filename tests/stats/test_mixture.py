"""Clusters of a Gaussian mixture."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from sagefm.stats import mixture, sampling
from sagefm.stats.mixture import fit_mixture, mixture_clusters


def test_clusters_are_found_whatever_their_common_shape():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 60)
    stretched = rng.normal(size=(180, 2)) * [2, 0.2]
    clusters = mixture_clusters(stretched + np.c_[0 * truth, 3 * truth], 3, seed=1)
    pairs = set(zip(truth.tolist(), clusters.tolist(), strict=True))
    assert len(pairs) == len(np.unique(clusters)) == 3
    assert clusters.dtype == np.int64
    again = mixture_clusters(stretched + np.c_[0 * truth, 3 * truth], 3, seed=1)
    np.testing.assert_array_equal(clusters, again)


@pytest.mark.parametrize(("n", "width", "seed"), [(200, 6, 0), (60, 12, 1)])
def test_it_is_the_mixture_of_scikit_learn(n, width, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, width)) + rng.integers(0, 4, n)[:, None] * rng.normal(size=width)
    theirs = GaussianMixture(
        4, covariance_type="tied", n_init=5, max_iter=300, random_state=seed
    ).fit(points)
    ours = fit_mixture(points, 4, seed, n_starts=5)
    np.testing.assert_array_equal(ours.labels, theirs.predict(points))
    np.testing.assert_allclose(ours.posterior, theirs.predict_proba(points), atol=1e-8)
    constant = width / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(ours.log_likelihood - constant, theirs.lower_bound_)


def test_more_starts_are_never_less_likely():
    points = np.random.default_rng(2).normal(size=(80, 3))
    fits = [fit_mixture(points, 6, 0, n_starts).log_likelihood for n_starts in (1, 5, 20)]
    assert fits == sorted(fits)


def test_many_points_are_clustered_as_all_at_once_would_be(monkeypatch):
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(4, 5)) * 6
    points = centers[rng.choice(4, 3000, p=[0.5, 0.3, 0.15, 0.05])] + rng.normal(size=(3000, 5))
    whole = fit_mixture(points, 4, 0, n_starts=5)
    monkeypatch.setattr(sampling, "MANY", 1000)
    monkeypatch.setattr(mixture, "_SAMPLE", 500)
    monkeypatch.setattr(mixture, "_BLOCK", 700)
    sampled = fit_mixture(points.astype(np.float32), 4, 0, n_starts=5)
    assert adjusted_rand_score(whole.labels, sampled.labels) > 0.995
    np.testing.assert_allclose(sampled.log_likelihood, whole.log_likelihood, atol=2e-3)
    order = np.argsort(sampled.posterior.sum(axis=0))
    sizes = np.sort(whole.posterior.sum(axis=0))
    np.testing.assert_allclose(sampled.posterior.sum(axis=0)[order], sizes, rtol=0.02)
