"""Which spots a spot sees, and the sparse operators that average over them."""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sagefm._errors import InputError

_SPARE = 17
"""Candidates asked for beyond k, so that almost every group of ties is seen whole at once."""
_CHUNK = 65_536
"""Spots per query, so that the candidates of a large slide never stand in memory together."""


def nearest(
    coordinates: ArrayLike, n_neighbors: int = 15, slides: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Find the nearest spots of every spot: exact, within its slide, the spot itself first.

    Distances are Euclidean in float64. Where spots are equally far, the one that stands earlier in
    the slide comes first. (On the hexagonal grid of Visium the 14 neighbors are the 6 of the first
    ring, the 6 of the second and 2 of the 6 at twice the pitch: those 2 are always such a tie.)

    Parameters
    ----------
    coordinates
        Spots × 2, pixels or any other unit.
    n_neighbors
        Size of a neighborhood, the center included.
    slides
        For each spot the slide that it belongs to; all one slide where it is not given.

    Returns
    -------
    Spots × `n_neighbors` row numbers, the first column the spot itself, then by distance.

    Raises
    ------
    InputError
        A slide has fewer spots than a neighborhood needs.
    """
    points = np.asarray(coordinates, dtype=np.float64)
    codes = np.zeros(len(points), dtype=np.int64) if slides is None else np.asarray(slides)
    names, codes = np.unique(codes, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    neighbors = np.empty((len(points), n_neighbors), dtype=np.int64)
    for name, (start, stop) in zip(names, pairwise(starts), strict=True):
        if stop - start < n_neighbors:
            which = "the slide" if len(names) == 1 else f"slide {name!s}"
            raise InputError(
                f"{which} has {stop - start} spots, but a neighborhood needs {n_neighbors}; "
                "leave the slide out or use a model with smaller neighborhoods"
            )
        rows = order[start:stop]
        neighbors[rows] = rows[_nearest_on_one_slide(points[rows], n_neighbors)]
    return neighbors


def _nearest_on_one_slide(points: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    tree = cKDTree(points)
    found = np.empty((len(points), k), dtype=np.int64)
    for start in range(0, len(points), _CHUNK):
        todo = np.arange(start, min(start + _CHUNK, len(points)))
        n_candidates = k + _SPARE
        while len(todo):
            n_candidates = min(n_candidates, len(points))
            rows, complete = _rank_candidates(tree, points, todo, k, n_candidates)
            found[todo[complete]] = rows[complete]
            todo = todo[~complete]
            n_candidates *= 2
    return found


def _rank_candidates(
    tree: cKDTree,
    points: NDArray[np.float64],
    centers: NDArray[np.int64],
    k: int,
    n_candidates: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Order the nearest candidates of some centers by distance, then by row.

    Also says for which centers no spot beyond the candidates can be as near as the k-th.
    """
    candidates = np.sort(tree.query(points[centers], n_candidates, workers=-1)[1], axis=1)
    offsets = points[candidates] - points[centers][:, None]
    distances = (offsets**2).sum(axis=2)
    farthest = distances.max(axis=1)
    distances[candidates == centers[:, None]] = -1.0  # the center leads, also among twins
    ranks = np.argsort(distances, axis=1, kind="stable")[:, :k]
    kth = np.take_along_axis(distances, ranks[:, -1:], axis=1)[:, 0]
    # The tree compares rounded distances: a spot it left out may be nearer by that rounding.
    complete = (kth < farthest * (1 - 1e-12)) | (n_candidates == len(points))
    return np.take_along_axis(candidates, ranks, axis=1), complete


def average(neighbors: NDArray[np.int64], *, center: bool = True) -> csr_matrix:
    """Make the operator that averages over the neighborhoods.

    Parameters
    ----------
    neighbors
        Spots × k row numbers, the center first, as :func:`nearest` gives them.
    center
        Whether the center counts as one of the k spots, as in the published network, or only its
        k - 1 neighbors are averaged.

    Returns
    -------
    Sparse spots × spots float32 matrix whose rows sum to 1.
    """
    members = neighbors if center else neighbors[:, 1:]
    n_spots, size = members.shape
    return csr_matrix(
        (
            np.full(members.size, 1 / size, dtype=np.float32),
            members.ravel(),
            np.arange(0, members.size + 1, size),
        ),
        shape=(n_spots, n_spots),
    )
