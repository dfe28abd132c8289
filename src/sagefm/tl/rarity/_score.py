"""How rare a spot is: what it has too much of, few others share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sagefm._types import Floats, Positions, Singles
from sagefm.tl.rarity._counts import Expected

ALIKE = 5
"""Spots most alike a spot, whose excess it must share."""
_GENES = 30
"""Genes of their excess that count."""
_WIDESPREAD = 0.95
"""A population is rare if fewer spots than the rest share it: at most one in twenty."""
_LEAST_WIDESPREAD = 0.5
_DRAWS = 3
"""How many times counts are drawn from what was expected."""
_BLOCK = 512
"""Spots whose likenesses stand in memory together."""
_SMALLEST = 3
"""Spots of a population."""


@dataclass(frozen=True)
class Scores:
    """What is found about each spot of a slide."""

    score: Floats
    """Standard deviations beyond what noise gives in a spot of that depth."""
    q: Floats
    """Share of noise to be expected among the spots with this score or a higher one."""
    shared: Floats
    """How much of the excess of the spots most alike the spot has too."""
    widespread: Floats
    """How much of it 1 in 20 spots have."""
    misfit: Floats
    """Mean squared residual: 1 if nothing but noise parts the counts from what was expected."""
    alike: Positions
    """Spots × 5: the spots most alike each."""


def score(expected: Expected, chance: np.random.Generator) -> Scores:
    """Score the spots of one slide, against the same on counts drawn from what was expected."""
    residuals = expected.residuals()
    shared, widespread, alike = _likeness(residuals)
    noise = []
    for _ in range(_DRAWS):
        noise_shared, noise_widespread, _ = _likeness(expected.of_noise(chance))
        noise.append(noise_shared / np.maximum(noise_widespread, _LEAST_WIDESPREAD))
    mean, spread = _by_depth(np.concatenate(noise), np.tile(expected.depth, _DRAWS))
    seen = shared / np.maximum(widespread, _LEAST_WIDESPREAD)
    z = (seen - mean[: len(seen)]) / spread[: len(seen)]
    return Scores(
        score=z,
        q=_false_discovery(z, (np.concatenate(noise) - mean) / spread),
        shared=shared,
        widespread=widespread,
        misfit=np.square(residuals).mean(axis=1, dtype=np.float64),
        alike=alike,
    )


def _likeness(residuals: Singles) -> tuple[Floats, Floats, Positions]:
    """Find for each spot those most alike, and how much of what they have too much of it shares.

    The profile of a spot is the mean of the residuals of the 5 spots most alike, itself left out,
    on the 30 genes where that is highest.

    Returns
    -------
    The projection of each spot on its profile; the 95th percentile of the projections of all
    spots on it; the spots most alike.
    """
    n_spots, n_genes = residuals.shape
    shared, widespread = np.empty(n_spots), np.empty(n_spots)
    alike = np.empty((n_spots, ALIKE), dtype=np.int64)
    high, last = int(_WIDESPREAD * (n_spots - 1)), max(n_genes - _GENES, 0)
    for start in range(0, n_spots, _BLOCK):
        block = residuals[start : start + _BLOCK]
        own = np.arange(len(block))
        products = block @ residuals.T
        products[own, start + own] = -np.inf
        near = np.argpartition(products, -ALIKE, axis=1)[:, -ALIKE:]
        alike[start : start + _BLOCK] = near
        profile = residuals[near[:, 0]]
        for column in near.T[1:]:
            profile += residuals[column]
        least = np.partition(profile, last, axis=1)[:, last, None]
        profile[profile < np.maximum(least, 0)] = 0
        profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-9)
        projected = profile @ residuals.T
        shared[start : start + _BLOCK] = projected[own, start + own]
        widespread[start : start + _BLOCK] = np.partition(projected, high, axis=1)[:, high]
    return shared, widespread, alike


def _by_depth(noise: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """Fit mean and standard deviation of what noise gives, by the depth of a spot."""
    logs = np.log(depth)
    terms = np.vander((logs - logs.mean()) / max(float(logs.std()), 1e-9), 3)
    mean = terms @ np.linalg.lstsq(terms, noise, rcond=None)[0]
    away = np.abs(noise - mean)
    # Of a normal variable the standard deviation is 1.25 times the mean distance.
    spread = 1.25 * (terms @ np.linalg.lstsq(terms, away, rcond=None)[0])
    return mean, np.maximum(spread, 0.5 * away.mean())


def _false_discovery(seen: Floats, noise: Floats) -> Floats:
    """For each spot, the share of those with as high a score that noise would give.

    One is added to the scores of noise that are counted, over all draws: none is surely none.
    """
    order = np.argsort(-seen, kind="stable")
    above = len(noise) - np.searchsorted(np.sort(noise), seen[order], side="left")
    expected = (above + 1) * len(seen) / len(noise)
    share = np.minimum(expected / np.arange(1, len(seen) + 1), 1.0)
    q = np.empty(len(seen))
    q[order] = np.minimum.accumulate(share[::-1])[::-1]
    return q


def group(chosen: NDArray[np.bool_], alike: Positions) -> NDArray[np.int64]:
    """Join chosen spots that are most alike: the number of the population of each, from 1 on.

    The largest population is 1; 0 for spots that are not chosen, or have fewer than two others.
    """
    rows = np.repeat(np.arange(len(alike)), alike.shape[1])
    columns = alike.ravel()
    both = chosen[rows] & chosen[columns]
    links = coo_matrix(
        (np.ones(both.sum()), (rows[both], columns[both])), shape=(len(alike), len(alike))
    )
    _, labels = connected_components(links, directed=False)
    sizes = np.bincount(labels[chosen], minlength=labels.max() + 1)
    order = [label for label in np.argsort(-sizes, kind="stable") if sizes[label] >= _SMALLEST]
    numbers = np.zeros(len(sizes), dtype=np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.where(chosen, numbers[labels], 0)
