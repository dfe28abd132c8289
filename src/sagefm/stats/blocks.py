"""Spatial cross-validation: compact blocks of spots, several in a fold, with a buffer between."""

import heapq
from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Bools, Codes, Floats, Positions, Reals

N_FOLDS = 5
MOST_BLOCKS = 25
"""Blocks of a slide, unless it has more sections."""
LEAST_IN_A_BLOCK = 15
"""Minimum mean number of spots of a block."""
_CONSTANT = 1e-20


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


@dataclass(frozen=True)
class BlockSums:
    """What correlations over blocks are computed from, for any choice of blocks.

    Attributes
    ----------
    n
        Spots of each block.
    sums
        Moments × blocks × columns.
    """

    n: Floats
    sums: Floats

    @classmethod
    def of(cls, block: Codes, truth: Reals, predicted: Reals) -> Self:
        """Sum each block of spots × columns."""
        n_blocks = int(block.max()) + 1
        # float64: of sums of squares a difference is taken.
        a, b = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        sums = np.zeros((5, n_blocks, a.shape[1]))
        for total, values in zip(sums, (a, b, a * a, b * b, a * b), strict=True):
            np.add.at(total, block, values)
        return cls(np.bincount(block, minlength=n_blocks).astype(np.float64), sums)

    def correlations(self, weights: Floats | None = None) -> Floats:
        """Correlate over all blocks, or over blocks with weights: draws × columns.

        0 where one of the two does not vary, NaN where values are missing.
        """
        weights = np.ones((1, len(self.n))) if weights is None else weights
        n = (weights @ self.n)[:, None]
        a, b, aa, bb, ab = np.einsum("wk,mkc->mwc", weights, self.sums) / n
        spread = np.maximum(aa - a * a, 0) * np.maximum(bb - b * b, 0)
        varied = spread > _CONSTANT * aa * bb
        r = np.divide(ab - a * b, np.sqrt(spread), out=np.zeros_like(ab), where=varied)
        r[np.isnan(ab)] = np.nan
        return np.asarray(r)
