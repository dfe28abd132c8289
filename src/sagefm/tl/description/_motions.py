"""Move the labels of a section at random, so that their shapes stay and their place changes."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from sagefm._types import Bools, Floats, Positions


def motions(
    points: Floats, at: Bools | Positions, known: Bools, n: int, rng: np.random.Generator
) -> Iterator[Positions]:
    """Draw motions: mirrored or not, rotated by any angle, shifted; the section is repeated.

    Parameters
    ----------
    points
        Coordinates of the spots.
    at
        Spots that get a label from elsewhere.
    known
        Spots whose labels are moved.
    n
        Number of motions.
    rng
        Source of chance.

    Yields
    ------
    For each spot of `at` the number, among the `known` spots, of the one nearest to where the
    motion takes it.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    # The last column lies beside the first.
    box = np.maximum(high - low, 1e-9) * (1 + 1 / np.sqrt(len(points)))
    tree = cKDTree((points[known] - low) % box, boxsize=box)
    center = (low + high) / 2
    offsets = points[at] - center
    for _ in range(n):
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn[0] *= rng.choice([-1, 1])
        moved = offsets @ turn + center - low + rng.uniform(0, 1, 2) * box
        yield np.asarray(tree.query(moved % box)[1], dtype=np.int64)
