"""Spatial cross-validation: compact blocks of spots, several in a fold, with a buffer between."""

import heapq
from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Bools, Codes, Floats, Positions

N_FOLDS = 5
MOST_BLOCKS = 25
"""Blocks of a slide, unless it has more sections."""
LEAST_IN_A_BLOCK = 15
"""Minimum mean number of spots of a block."""


@dataclass(frozen=True)
class BlockFolds:
    """Folds of spots: each is tested on by a fit to spots that are not in it or near it.

    Attributes
    ----------
    block
        Block of each spot.
    fold
        Fold of each spot.
    near
        Folds × spots: those of the fold, and those whose neighborhood overlaps it.
    """

    block: Codes
    fold: Codes
    near: Bools

    @classmethod
    def of(cls, points: Floats, sections: Codes, neighbors: Positions) -> Self:
        """Divide sections into blocks by :func:`divide`, and blocks into folds.

        Parameters
        ----------
        points, sections
            Of each spot.
        neighbors
            Spots × neighborhood, the center included.
        """
        n_blocks = N_FOLDS * int(
            np.clip(len(points) // (N_FOLDS * LEAST_IN_A_BLOCK), 1, MOST_BLOCKS // N_FOLDS)
        )
        block = divide(points, sections, n_blocks)
        fold = block % N_FOLDS
        near = np.zeros((N_FOLDS, len(points)), dtype=np.bool_)
        for number in range(N_FOLDS):
            test = fold == number
            near[number] = test | test[neighbors].any(axis=1)
            near[number, neighbors[test]] = True
        return cls(block, fold, near)

    def __len__(self) -> int:
        """Count the folds."""
        return len(self.near)


def divide(points: Floats, sections: Codes, n_blocks: int) -> Codes:
    """Divide spots into compact blocks of similar numbers: halve the largest, across its length.

    Parameters
    ----------
    points
        Spots × 2.
    sections
        The section of each spot; a block is in one section.
    n_blocks
        Number of blocks; at least one for each section.

    Returns
    -------
    The block of each spot. Blocks with consecutive numbers lie next to each other.
    """
    heap = [(-int((sections == code).sum()), (int(code), 0.0, 1.0)) for code in np.unique(sections)]
    rows = {key: np.flatnonzero(sections == key[0]) for _, key in heap}
    heapq.heapify(heap)
    while len(heap) < n_blocks and -heap[0][0] > 1:
        _, key = heapq.heappop(heap)
        own = rows.pop(key)
        extent = np.ptp(points[own], axis=0)
        along = int(extent[1] > extent[0])
        order = own[np.lexsort((points[own, 1 - along], points[own, along]))]
        middle = (key[1] + key[2]) / 2
        for half, start, stop in ((order[: len(own) // 2], key[1], middle),
                                  (order[len(own) // 2 :], middle, key[2])):  # fmt: skip
            rows[key[0], start, stop] = half
            heapq.heappush(heap, (-len(half), (key[0], start, stop)))
    block = np.empty(len(points), dtype=np.int64)
    for number, key in enumerate(sorted(rows)):
        block[rows[key]] = number
    return block
