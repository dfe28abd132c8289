"""Clusters of points by a Gaussian mixture whose components share one covariance."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Codes, Floats, Reals
from sagefm.stats.sampling import evenly, is_many

N_STARTS = 50
_MAX_ITER = 300
_TOLERANCE = 1e-3
_RIDGE = 1e-6
"""Added to the diagonal of the covariance."""
_EMPTY = 10 * np.finfo(np.float64).eps
_SAMPLE = 5_000
"""Points that the starts are fitted to where there are many."""
_BLOCK = 16_384
"""Points that are converted at a time."""


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
    points: Reals, n_clusters: int, seed: int = 0, n_starts: int = N_STARTS
) -> Codes:
    """Cluster points (rows) by the best of several mixtures: see :func:`fit_mixture`."""
    return fit_mixture(points, n_clusters, seed, n_starts).labels


def fit_mixture(points: Reals, n_clusters: int, seed: int = 0, n_starts: int = N_STARTS) -> Mixture:
    """Fit a Gaussian mixture with one covariance for all components.

    It is the mixture of :class:`sklearn.mixture.GaussianMixture` with ``covariance_type="tied"``,
    and has its starts (k-means), its steps and its results. With a shared covariance the scatter
    within the components is that of all points, computed once, less that of their means: a step
    costs two products of points × components instead of a solve for each component.

    Above 20,000 points the starts are fitted to a sample of them, and the likeliest is then fitted
    to all.

    Parameters
    ----------
    points
        Points × dimensions, more points than components. Samples are spread evenly over the rows:
        where these are many, sort them by something that does not depend on chance.
    n_clusters
        Number of components.
    seed
        Of the k-means starts.
    n_starts
        Fits; the likeliest is returned.
    """
    many = is_many(len(points))
    some = points[evenly(len(points), _SAMPLE)] if many else points
    best = _best_start(np.ascontiguousarray(some, dtype=np.float64), n_clusters, seed, n_starts)
    return _fit_all(points, best.posterior, some) if many else best


def _best_start(points: Floats, n_clusters: int, seed: int, n_starts: int) -> Mixture:
    from sklearn.cluster import KMeans

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
    found = _Parameters.of(
        moments, posterior.sum(axis=0), posterior.T @ points, n_points=len(points)
    )
    posterior, likelihood = found.expect(points)
    return posterior, float(likelihood.mean()) - found.constant


def _fit_all(points: Reals, posterior: Floats, of: Reals) -> Mixture:
    """Fit to all points, from the posterior of a sample; the points are read in blocks."""
    blocks = [slice(at, at + _BLOCK) for at in range(0, len(points), _BLOCK)]
    moments = np.zeros((points.shape[1],) * 2)
    for at in blocks:
        block = points[at].astype(np.float64)
        moments += block.T @ block / len(points)
    sample = of.astype(np.float64)
    sizes, sums = posterior.sum(axis=0), posterior.T @ sample
    found = _Parameters.of(sample.T @ sample / len(of), sizes, sums, n_points=len(of))
    posterior = np.empty((len(points), len(sizes)))
    before = -np.inf
    for _ in range(_MAX_ITER):
        total, sizes, sums = 0.0, np.zeros_like(sizes), np.zeros_like(sums)
        for at in blocks:
            block = points[at].astype(np.float64)
            posterior[at], likelihood = found.expect(block)
            total += float(likelihood.sum())
            sizes += posterior[at].sum(axis=0)
            sums += posterior[at].T @ block
        mean = total / len(points) - found.constant
        if abs(mean - before) < _TOLERANCE:
            break
        before = mean
        found = _Parameters.of(moments, sizes, sums, n_points=len(points))
    return Mixture(posterior, mean)


@dataclass(frozen=True)
class _Parameters:
    """What tells the components apart: points @ discriminants + offsets."""

    discriminants: Floats
    offsets: Floats
    constant: float
    """What the likelihood loses for all points: spread, and volume of the covariance."""

    @classmethod
    def of(cls, moments: Floats, sizes: Floats, sums: Floats, *, n_points: int) -> Self:
        """Estimate them from the points of each component, their sums, and the moments of all."""
        sizes = np.add(sizes, _EMPTY)
        means = sums / sizes[:, None]
        covariance = moments - (means.T * sizes) @ means / n_points
        covariance.flat[:: len(moments) + 1] += _RIDGE
        solved = np.linalg.solve(covariance, np.column_stack([means.T, moments]))
        discriminants, whitened = solved[:, : len(means)], solved[:, len(means) :]
        offsets = np.log(sizes / n_points) - (means.T * discriminants).sum(axis=0) / 2
        constant = (np.trace(whitened) + np.linalg.slogdet(covariance)[1]) / 2
        return cls(np.asarray(discriminants, dtype=np.float64), offsets, float(constant))

    def expect(self, points: Floats) -> tuple[Floats, Floats]:
        """Compute the posterior of points, and their likelihoods without the constant."""
        scores = points @ self.discriminants
        scores += self.offsets
        highest = scores.max(axis=1, keepdims=True)
        scores -= highest
        np.exp(scores, out=scores)
        total = scores.sum(axis=1, keepdims=True)
        scores /= total
        return scores, np.log(total) + highest
