"""Score how rare spots are by the excess of genes that few other spots have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sagefm._types import Floats, Positions, Singles
from sagefm.tl.rarity._counts import Expected

N_SIMILAR = 5
"""Number of most similar spots, with whose excess a spot is compared."""
_GENES = 30
"""Number of genes of their excess that are used."""
_WIDESPREAD = 0.95
"""Quantile of the spots: the excess of a rare population is in at most one in twenty."""
_LEAST_WIDESPREAD = 0.5
_DRAWS = 3
"""How many times counts are drawn from the expected rates."""
_BLOCK = 512
"""Spots whose similarities are in memory together."""
_SMALLEST = 3
"""Minimum number of spots of a population."""


@dataclass(frozen=True)
class Scores:
    """Scores of the spots of a section."""

    score: Floats
    """Standard deviations above noise in spots of that library size."""
    q: Floats
    """Expected fraction of noise among the spots with this score or a higher one."""
    shared: Floats
    """Projection of the spot on the excess of the most similar spots."""
    widespread: Floats
    """The projection that 1 in 20 spots reach."""
    misfit: Floats
    """Mean squared residual, 1 if there is only noise."""
    similar: Positions
    """Spots × 5: the most similar spots of each."""


def score(expected: Expected, rng: np.random.Generator) -> Scores:
    """Score the spots of one section, relative to counts drawn from the expected rates."""
    residuals = expected.residuals()
    shared, widespread, similar = _compare(residuals)
    noise = []
    for _ in range(_DRAWS):
        noise_shared, noise_widespread, _ = _compare(expected.of_noise(rng))
        noise.append(noise_shared / np.maximum(noise_widespread, _LEAST_WIDESPREAD))
    mean, spread = _fit_noise(np.concatenate(noise), np.tile(expected.library_size, _DRAWS))
    ratio = shared / np.maximum(widespread, _LEAST_WIDESPREAD)
    z = (ratio - mean[: len(ratio)]) / spread[: len(ratio)]
    return Scores(
        score=z,
        q=_false_discovery(z, (np.concatenate(noise) - mean) / spread),
        shared=shared,
        widespread=widespread,
        misfit=np.square(residuals).mean(axis=1, dtype=np.float64),
        similar=similar,
    )


def _compare(residuals: Singles) -> tuple[Floats, Floats, Positions]:
    """Find the most similar spots of each spot, and project it on their excess.

    The profile of a spot is the mean residual of the 5 most similar other spots, on the 30 genes
    where that is highest.

    Returns
    -------
    The projection of each spot on its profile; the 95th percentile of the projections of all
    spots on it; the most similar spots.
    """
    n_spots, n_genes = residuals.shape
    shared, widespread = np.empty(n_spots), np.empty(n_spots)
    similar = np.empty((n_spots, N_SIMILAR), dtype=np.int64)
    high, last = int(_WIDESPREAD * (n_spots - 1)), max(n_genes - _GENES, 0)
    for start in range(0, n_spots, _BLOCK):
        block = residuals[start : start + _BLOCK]
        rows = np.arange(len(block))
        products = block @ residuals.T
        products[rows, start + rows] = -np.inf
        near = np.argpartition(products, -N_SIMILAR, axis=1)[:, -N_SIMILAR:]
        similar[start : start + _BLOCK] = near
        profile = residuals[near[:, 0]]
        for column in near.T[1:]:
            profile += residuals[column]
        least = np.partition(profile, last, axis=1)[:, last, None]
        profile[profile < np.maximum(least, 0)] = 0
        profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-9)
        projected = profile @ residuals.T
        shared[start : start + _BLOCK] = projected[rows, start + rows]
        widespread[start : start + _BLOCK] = np.partition(projected, high, axis=1)[:, high]
    return shared, widespread, similar


def _fit_noise(noise: Floats, library_size: Floats) -> tuple[Floats, Floats]:
    """Fit mean and standard deviation of the noise as functions of library size."""
    logs = np.log(library_size)
    terms = np.vander((logs - logs.mean()) / max(float(logs.std()), 1e-9), 3)
    mean = terms @ np.linalg.lstsq(terms, noise, rcond=None)[0]
    deviation = np.abs(noise - mean)
    # Of a normal variable the standard deviation is 1.25 times the mean distance.
    spread = 1.25 * (terms @ np.linalg.lstsq(terms, deviation, rcond=None)[0])
    return mean, np.maximum(spread, 0.5 * deviation.mean())


def _false_discovery(scores: Floats, noise: Floats) -> Floats:
    """Estimate for each spot the fraction of noise among spots with at least its score.

    One is added to the number of noise scores over all draws, so that it is never zero.
    """
    order = np.argsort(-scores, kind="stable")
    above = len(noise) - np.searchsorted(np.sort(noise), scores[order], side="left")
    expected = (above + 1) * len(scores) / len(noise)
    fraction = np.minimum(expected / np.arange(1, len(scores) + 1), 1.0)
    q = np.empty(len(scores))
    q[order] = np.minimum.accumulate(fraction[::-1])[::-1]
    return q


def group(chosen: NDArray[np.bool_], similar: Positions) -> NDArray[np.int64]:
    """Group chosen spots that are similar, and number the groups from 1 on by size.

    0 for spots that are not chosen, or in a group of fewer than three.
    """
    rows = np.repeat(np.arange(len(similar)), similar.shape[1])
    columns = similar.ravel()
    both = chosen[rows] & chosen[columns]
    links = coo_matrix(
        (np.ones(both.sum()), (rows[both], columns[both])), shape=(len(similar), len(similar))
    )
    _, labels = connected_components(links, directed=False)
    sizes = np.bincount(labels[chosen], minlength=labels.max() + 1)
    order = [label for label in np.argsort(-sizes, kind="stable") if sizes[label] >= _SMALLEST]
    numbers = np.zeros(len(sizes), dtype=np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.where(chosen, numbers[labels], 0)
