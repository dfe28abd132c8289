"""Find neighborhoods of spots, and build sparse operators that average over them."""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sagefm._errors import InputError

_SPARE = 17
"""Additional candidates, so that almost every group of ties is complete at the first query."""
_BLOCK = 2_000_000
"""Candidates that are in memory together."""
_SAME = 1e-9
"""Squared distances that differ by less than this fraction of the largest are equal: on an ideal
grid, whose rows lie √3/2 apart, ties differ by rounding."""
_FARTHEST, _SMALLEST = 1e9, 1e-9
"""Coordinates beyond these are no pixels and no lengths in a usual unit."""
_DIGITS = 1e6
"""Coordinates may be this many times the distance of spots: beyond, their rounding breaks ties."""


def require_scale(points: NDArray[np.float64]) -> None:
    """Raise an error if the scale of coordinates hides the distances of spots.

    Raises
    ------
    InputError
        Coordinates are extremely large, extremely close, or far away from 0 in comparison with the
        distances of the spots.
    """
    if len(points) < 2:
        return
    far = np.abs(points).max(axis=1)
    if far.max() > _FARTHEST:
        raise InputError(
            f"coordinates up to {far.max():.3g} are out of scale; correct them, or leave those "
            "spots out"
        )
    extent = np.ptp(points, axis=0).max()
    if 0 < extent < _SMALLEST:
        raise InputError(
            f"all coordinates lie within {extent:.3g}, which is out of scale; set them in pixels "
            "or µm"
        )
    # Half of the spots lie within the quartiles: a cheap guess of their distance, without outliers.
    within = np.ptp(np.quantile(points, (0.25, 0.75), axis=0), axis=0).max()
    if np.median(far) * np.sqrt(len(points)) * 1e3 < _DIGITS * within:
        return
    some = np.linspace(0, len(points) - 1, min(len(points), 500)).astype(np.int64)
    apart = np.asarray(cKDTree(points).query(points[some], 2)[0])[:, 1]
    if (known := apart > 0).any() and np.median(far[some][known] / apart[known]) > _DIGITS:
        raise InputError(
            f"coordinates up to {far.max():.3g} are too large for spots that lie "
            f"{np.median(apart[known]):.3g} apart: rounding hides their distances; subtract the "
            "smallest x and y"
        )


def nearest(
    coordinates: ArrayLike, n_neighbors: int = 15, sections: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Find the neighborhood of every spot: the spot itself, then the nearest in its section.

    Euclidean distances are exact, in float64. Ties, to rounding, are sorted by x, then by y, so
    that the order of the spots does not matter.
    (On the hexagonal grid of Visium the 14 neighbors are the 6 of the first ring, the 6 of the
    second and 2 of the 6 at twice the pitch: those 2 are always tied.)

    Parameters
    ----------
    coordinates
        Spots × 2, pixels or any other unit.
    n_neighbors
        Spots in a neighborhood, the center included.
    sections
        The section of each spot; one section if not given.

    Returns
    -------
    Spots × `n_neighbors` row numbers, the first column the spot itself, then by distance.

    Raises
    ------
    InputError
        A section has fewer spots than a neighborhood needs, or coordinates are out of scale.
    """
    points = np.asarray(coordinates, dtype=np.float64)
    require_scale(points)
    codes = np.zeros(len(points), dtype=np.int64) if sections is None else np.asarray(sections)
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
        neighbors[rows] = rows[_nearest_in_section(points[rows], n_neighbors)]
    return neighbors


def _nearest_in_section(points: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    tree = cKDTree(points)
    by_place = np.empty(len(points), dtype=np.int64)
    by_place[np.lexsort((points[:, 1], points[:, 0]))] = np.arange(len(points))
    neighbors = np.empty((len(points), k), dtype=np.int64)
    todo = np.arange(len(points))
    n_candidates = k + _SPARE
    while len(todo):
        n_candidates = min(n_candidates, len(points))
        incomplete = []
        for centers in np.array_split(todo, -(-len(todo) * n_candidates // _BLOCK)):
            rows, complete = _rank_candidates(tree, points, centers, by_place, k, n_candidates)
            neighbors[centers[complete]] = rows[complete]
            incomplete.append(centers[~complete])
        todo = np.concatenate(incomplete)
        n_candidates *= 2
    return neighbors


def _rank_candidates(
    tree: cKDTree,
    points: NDArray[np.float64],
    centers: NDArray[np.int64],
    by_place: NDArray[np.int64],
    k: int,
    n_candidates: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Order the nearest candidates of some centers by distance, then by place (x, then y).

    Also return for which centers no spot beyond the candidates can be as near as the k-th.
    """
    candidates = tree.query(points[centers], n_candidates, workers=-1)[1]
    candidates = candidates.reshape(len(centers), n_candidates)  # of one candidate, it is a vector
    offsets = points[candidates] - points[centers][:, None]
    squared = (offsets**2).sum(axis=2)
    # The center comes first, even if other spots have the same coordinates.
    squared[candidates == centers[:, None]] = -1.0
    order = np.argsort(squared, axis=1, kind="stable")
    candidates = np.take_along_axis(candidates, order, axis=1)
    squared = np.take_along_axis(squared, order, axis=1)
    same = _SAME * squared[:, k - 1 : k]
    group = np.cumsum(np.diff(squared, axis=1, prepend=squared[:, :1]) > same, axis=1)
    ranks = np.argsort(group * len(points) + by_place[candidates], axis=1)[:, :k]
    # Other spots are at least as far as the last candidate, to rounding.
    beyond = squared[:, -1] > squared[:, k - 1] * (1 + 2 * _SAME)
    complete = beyond | (n_candidates == len(points))
    return np.take_along_axis(candidates, ranks, axis=1), complete


def average(
    neighbors: NDArray[np.int64], *, center: bool = True, n_spots: int | None = None
) -> csr_matrix:
    """Build the sparse operator that averages over neighborhoods.

    Parameters
    ----------
    neighbors
        Spots × k row numbers, the center first, as :func:`nearest` returns them.
    center
        Whether the mean includes the center, as in the published network, or only its k - 1
        neighbors.
    n_spots
        Spots of the slide, if `neighbors` holds only some of them.

    Returns
    -------
    Sparse rows of `neighbors` × spots float32 matrix whose rows sum to 1.
    """
    members = neighbors if center else neighbors[:, 1:]
    n_rows, size = members.shape
    return csr_matrix(
        (
            np.full(members.size, 1 / size, dtype=np.float32),
            members.ravel(),
            np.arange(0, members.size + 1, size),
        ),
        shape=(n_rows, n_rows if n_spots is None else n_spots),
    )
