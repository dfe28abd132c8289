"""The nearest of many points in many dimensions, approximately: those in the nearest cells."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sagefm._types import Positions, Singles
from sagefm.stats.sampling import evenly

_IN_A_CELL = 250
_CELLS = 12
"""Cells whose points are candidates for the points of one: 98 of 100 neighbors are found."""
_FITTED = 20
"""Points for each cell that the cells are fitted to."""
_ROUNDS = 5
_MAX_THREADS = 8


def nearly_nearest(points: Singles, n_nearest: int) -> Positions:
    """Find the nearest points of each point: almost all of them, always the same.

    Points are divided into cells, as an inverted file does, and compared with those of the cells
    that are nearest to their own.

    Parameters
    ----------
    points
        Points × dimensions, float32, many more than `n_nearest`.
    n_nearest
        How many to find, the point itself not counted.

    Returns
    -------
    Points × `n_nearest` row numbers, by distance.
    """
    centers = _find_centers(points)
    cell = _nearest_center(points, centers)
    order = np.argsort(cell, kind="stable")
    members = np.split(order, np.searchsorted(cell[order], np.arange(1, len(centers))))
    found = np.empty((len(points), n_nearest), dtype=np.int64)

    def fill(number: int) -> None:
        own = members[number]
        candidates = _candidates(number, centers, members, n_nearest)
        found[own] = _without_itself(own, candidates[_query(points, own, candidates, n_nearest)])

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        list(pool.map(fill, [at for at, own in enumerate(members) if len(own)]))
    return found


def _find_centers(points: Singles) -> Singles:
    """Take some steps of k-means on a sample, in an order of sums that threads do not change."""
    n_cells = max(len(points) // _IN_A_CELL, 1)
    some = points[evenly(len(points), _FITTED * n_cells)]
    centers = some[evenly(len(some), n_cells)]
    for _ in range(_ROUNDS):
        cell = _nearest_center(some, centers)
        sizes = np.bincount(cell, minlength=n_cells)[:, None]
        sums = [np.bincount(cell, weights=column, minlength=n_cells) for column in some.T]
        means = np.stack(sums, axis=1) / np.maximum(sizes, 1)
        centers = np.where(sizes > 0, means, centers).astype(np.float32)
    return centers


def _nearest_center(points: Singles, centers: Singles) -> Positions:
    from sklearn.metrics import pairwise_distances_argmin

    return np.asarray(pairwise_distances_argmin(points, centers), dtype=np.int64)


def _candidates(
    number: int, centers: Singles, members: list[Positions], n_nearest: int
) -> Positions:
    """Join the points of the nearest cells, of more where these have few."""
    squared = ((centers - centers[number]) ** 2).sum(axis=1)
    by_distance = np.argsort(squared, kind="stable")
    sizes = np.cumsum([len(members[at]) for at in by_distance])
    n_cells = max(_CELLS, int(np.searchsorted(sizes, n_nearest + 1)) + 1)
    return np.concatenate([members[at] for at in by_distance[:n_cells]])


def _query(points: Singles, own: Positions, candidates: Positions, n_nearest: int) -> Positions:
    """Find the nearest candidates of some points, and one more: the point itself."""
    origin = points[own].mean(axis=0)  # where squares are small, differences of them are exact
    compared = points[candidates] - origin
    squared = (points[own] - origin) @ compared.T
    squared *= -2
    squared += (compared**2).sum(axis=1)
    near = np.argpartition(squared, n_nearest, axis=1)[:, : n_nearest + 1]
    order = np.argsort(np.take_along_axis(squared, near, axis=1), axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1)


def _without_itself(own: Positions, near: Positions) -> Positions:
    """Leave each point out of its row, or the farthest where copies of it took its place."""
    others = near != own[:, None]
    others[others.all(axis=1), -1] = False
    return np.asarray(near[others].reshape(len(own), -1))
