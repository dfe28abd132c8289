"""Clusters of points by a Gaussian mixture whose components share one covariance."""

from dataclasses import dataclass

import numpy as np

from sagefm._types import Codes, Floats

N_STARTS = 50
_MAX_ITER = 300
_TOLERANCE = 1e-3
_RIDGE = 1e-6
"""Added to the diagonal of the covariance."""
_EMPTY = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture with one covariance for all components."""

    posterior: Floats
    """Points × components."""
    log_likelihood: float
    """Mean over the points, without the constant of the dimension."""

    @property
    def labels(self) -> Codes:
        """The likeliest component of each point."""
        return np.asarray(self.posterior.argmax(axis=1), dtype=np.int64)


def mixture_clusters(
    points: Floats, n_clusters: int, seed: int = 0, n_starts: int = N_STARTS
) -> Codes:
    """Cluster points (rows) by the best of several mixtures: see :func:`fit_mixture`."""
    return fit_mixture(points, n_clusters, seed, n_starts).labels


def fit_mixture(
    points: Floats, n_clusters: int, seed: int = 0, n_starts: int = N_STARTS
) -> Mixture:
    """Fit a Gaussian mixture with one covariance for all components.

    It is the mixture of :class:`sklearn.mixture.GaussianMixture` with ``covariance_type="tied"``,
    and has its starts (k-means), its steps and its results. With a shared covariance the scatter
    within the components is that of all points, computed once, less that of their means: a step
    costs two products of points × components instead of a solve for each component.

    Parameters
    ----------
    points
        Points × dimensions, more points than components.
    n_clusters
        Number of components.
    seed
        Of the k-means starts.
    n_starts
        Fits; the likeliest is returned.
    """
    from sklearn.cluster import KMeans

    points = np.ascontiguousarray(points, dtype=np.float64)
    moments = points.T @ points / len(points)
    rng = np.random.RandomState(seed)
    best: Mixture | None = None
    for _ in range(n_starts):
        start = KMeans(n_clusters, n_init=1, random_state=rng).fit(points).labels_
        mixture = _fit(points, moments, np.eye(n_clusters)[start])
        if best is None or mixture.log_likelihood > best.log_likelihood:
            best = mixture
    if best is None:
        raise ValueError("n_starts is 0")
    return best


def _fit(points: Floats, moments: Floats, posterior: Floats) -> Mixture:
    """Take steps of expectation and maximization from a first posterior until they gain nothing."""
    before = -np.inf
    for _ in range(_MAX_ITER):
        posterior, likelihood = _step(points, moments, posterior)
        if abs(likelihood - before) < _TOLERANCE:
            break
        before = likelihood
    return Mixture(_step(points, moments, posterior)[0], likelihood)


def _step(points: Floats, moments: Floats, posterior: Floats) -> tuple[Floats, float]:
    """Estimate the mixture from a posterior, and the posterior and likelihood from the mixture."""
    n = len(points)
    sizes = posterior.sum(axis=0) + _EMPTY
    means = (posterior.T @ points) / sizes[:, None]
    covariance = moments - (means.T * sizes) @ means / n
    covariance.flat[:: len(moments) + 1] += _RIDGE
    solved = np.linalg.solve(covariance, np.column_stack([means.T, moments]))
    discriminants, whitened = solved[:, : len(means)], solved[:, len(means) :]
    offsets = np.log(sizes / n) - (means.T * discriminants).sum(axis=0) / 2
    scores = points @ discriminants
    scores += offsets
    highest = scores.max(axis=1, keepdims=True)
    scores -= highest
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    scores /= total
    likelihood = float((np.log(total) + highest).mean())
    likelihood -= (np.trace(whitened) + np.linalg.slogdet(covariance)[1]) / 2
    return scores, likelihood
