"""Many spots of all sections in one order: their counts stay where they are and are read in blocks.

It is a :class:`sagefm.tl._tissue.Tissue` whose counts are neither sorted nor copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Codes, Floats, Positions, Reals
from sagefm.tl._layout import Layout, lay_out
from sagefm.tl._spot_counts import SpotCounts
from sagefm.tl._tissue import halved

if TYPE_CHECKING:
    from anndata import AnnData

_WIDEST, _AROUND = 25, 7
"""Nearest spots that the views of the consensus average over, and with whose means they compare."""


@dataclass(frozen=True)
class LargeTissue(Layout):
    """Spots of one section or of several, sorted along a space-filling curve, and their counts.

    Attributes
    ----------
    counts
        Counts of the spots in an order of their own.
    rows
        For each spot its row in `counts`.
    """

    counts: SpotCounts
    rows: Positions

    @classmethod
    def of(
        cls,
        slides: "Sequence[AnnData]",
        batches: Codes,
        sections: Sequence[Codes] | None = None,
        *,
        layer: str | None = None,
    ) -> Self:
        """Sort the spots of slides by batch, section and place, and find their neighbors.

        Parameters
        ----------
        slides, batches, sections, layer
            As for :meth:`sagefm.tl._tissue.Tissue.of`.
        """
        counts = SpotCounts.of(slides, layer)
        layout = lay_out(slides, batches, counts.sizes, sections, curve=True)
        return cls(counts=counts, rows=layout["order"], **layout)

    @cached_property
    def scale(self) -> Floats:
        """By which the counts of each row of `counts` are multiplied: to the median library."""
        sizes = self.counts.sizes
        usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
        return np.divide(usual, sizes, out=np.zeros_like(sizes), where=sizes > 0)

    def blocks(self) -> Iterator[tuple[Positions, csr_matrix]]:
        """Iterate over all spots: their numbers, and their counts."""
        number = np.empty(len(self), dtype=np.int64)
        number[self.rows] = np.arange(len(self))
        for at, block in self.counts.blocks():
            yield number[at], block

    def normalized(self, counts: csr_matrix, spots: Positions) -> csr_matrix:
        """Compute log1p of counts of some spots, scaled to the median library size, float32."""
        scale = self.scale[self.rows[spots]].astype(np.float32)
        values = counts.data * np.repeat(scale, np.diff(counts.indptr))
        np.log1p(values, out=values)
        return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)

    def mean_expression(self, spots: Positions, n_nearest: int) -> csr_matrix:
        """Average normalized expression over the nearest spots of some spots."""
        near, place = np.unique(self.neighbors[spots, :n_nearest], return_inverse=True)
        place = place.reshape(len(spots), -1) - (near[0] < 0)
        near = near[near >= 0]
        operator = _averaging(place, (place >= 0).astype(np.float32), len(near))
        return csr_matrix(operator @ self.normalized(self.counts.take(self.rows[near]), near))

    def weighted(self, near: Positions, weights: Reals) -> csr_matrix:
        """Average over spots with weights, which are scaled to sum 1: spots × spots."""
        return _averaging(near, weights, len(self))

    def around(self, spots: Positions) -> tuple[Self, Positions]:
        """Cut out some spots with all that the views of the consensus need of their surroundings.

        Returns
        -------
        The part, and the numbers of `spots` in it.
        """
        near = np.unique(self.neighbors[spots, :_WIDEST])
        near = np.unique(self.neighbors[near[near >= 0], :_AROUND])
        near = near[near >= 0]
        return self._take(near), np.searchsorted(near, spots)

    def batch(self, code: int) -> Self:
        """Get the sections of one batch."""
        return self._take(np.flatnonzero(self.batches == code))

    def _take(self, spots: Positions) -> Self:
        """Get some spots; neighbors that are not among them are lost."""
        number = np.full(len(self) + 1, -1)  # the last for no neighbor
        number[spots] = np.arange(len(spots))
        near = number[self.neighbors[spots]]
        # Those that are there come first, in their order.
        near = np.take_along_axis(near, np.argsort(near < 0, axis=1, kind="stable"), axis=1)
        taken = self.counts.take(self.rows[spots])
        return type(self)(
            neighbors=near,
            sections=np.unique(self.sections[spots], return_inverse=True)[1],
            batches=np.unique(self.batches[spots], return_inverse=True)[1],
            order=self.order[spots],
            counts=SpotCounts.of_matrix(taken),
            rows=np.arange(len(spots)),
        )

    def halved(self, seed: int) -> Self:
        """Draw a random half of the counts, which are copied: for a part."""
        taken = halved(self.counts.take(self.rows), seed)
        counts = SpotCounts.of_matrix(taken)
        return replace(self, counts=counts, rows=np.arange(len(self)))


def _averaging(near: Positions, weights: Reals, n_columns: int) -> csr_matrix:
    used = near >= 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    ends = np.zeros(len(near) + 1, dtype=np.int64)
    np.cumsum(used.sum(axis=1), out=ends[1:])
    return csr_matrix((weights[used], near[used], ends), shape=(len(near), n_columns))
