"""The spots of all sections in one order, with their expression and their neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix, vstack

from sagefm._types import Codes
from sagefm.pp.expression import normalize, shared_expression
from sagefm.tl._layout import Layout, lay_out

if TYPE_CHECKING:
    from anndata import AnnData

_DRAWN = 1_000_000
"""Counts that are drawn at a time."""


@dataclass(frozen=True)
class Tissue(Layout):
    """Spots of one section or of several, sorted, and their counts.

    Attributes
    ----------
    counts
        Spots × genes that all sections measured, raw counts.
    expression
        The same, log1p of counts scaled to the median library size.
    """

    counts: csr_matrix
    expression: csr_matrix

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
        slides
            Raw counts and ``obsm["spatial"]``. They are not changed.
        batches
            The batch of each spot of all slides, one after the other; the same for all spots of a
            section.
        sections
            For each slide the section of each spot; by default as :func:`sagefm.read` recorded.
        layer
            As in :func:`sagefm.tl.embed`.

        Raises
        ------
        InputError
            No raw counts, no coordinates, or no gene in common.
        """
        counts = vstack(shared_expression(slides, layer=layer).counts, format="csr")
        sizes = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        layout = lay_out(slides, batches, sizes, sections)
        counts = csr_matrix(counts[layout["order"]])
        return cls(counts=counts, expression=normalize([counts])[0], **layout)

    def halved(self, seed: int) -> Self:
        """Draw a random half of the counts."""
        counts = halved(self.counts, seed)
        return replace(self, counts=counts, expression=normalize([counts])[0])

    def batch(self, code: int) -> Self:
        """Get the sections of one batch."""
        rows = np.flatnonzero(self.batches == code)
        near = self.neighbors[rows]
        return type(self)(
            counts=self.counts[rows],
            expression=self.expression[rows],
            neighbors=np.where(near < 0, -1, near - rows[0]),
            sections=self.sections[rows] - self.sections[rows[0]],
            batches=np.zeros(len(rows), dtype=np.int64),
            order=self.order[rows],
        )


def halved(counts: csr_matrix, seed: int) -> csr_matrix:
    """Draw a random half of counts."""
    counts = counts.copy()
    rng = np.random.default_rng(seed)
    for start in range(0, counts.nnz, _DRAWN):
        some = slice(start, start + _DRAWN)
        counts.data[some] = rng.binomial(counts.data[some].astype(np.int64), 0.5)
    return counts
