"""The spots of all sections in one order, with their expression and their neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix, vstack

from sagefm._types import Codes, Floats, Positions
from sagefm.pp.counts import coordinates
from sagefm.pp.expression import normalize, shared_expression
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData

N_NEAREST = 37
"""On a hexagonal grid: a spot and the rings 1, 2 and 3."""


@dataclass(frozen=True)
class Tissue:
    """Spots of one section or of several, sorted so that the order of the input does not matter.

    Attributes
    ----------
    counts
        Spots × genes that all sections measured, raw counts.
    expression
        The same, log1p of counts scaled to the median library size.
    neighbors
        Spots × nearest spots of the same section, the spot first; -1 where there are no more.
    sections, batches
        The section and the batch of each spot, numbers from 0.
    order
        For each spot its row in the slides, one after the other.
    """

    counts: csr_matrix
    expression: csr_matrix
    neighbors: Positions
    sections: Codes
    batches: Codes
    order: Positions

    def __len__(self) -> int:
        """Count the spots."""
        return len(self.order)

    @classmethod
    def of(
        cls,
        slides: "Sequence[AnnData]",
        batches: Codes,
        *,
        layer: str | None = None,
        slide_key: str | None = None,
    ) -> Self:
        """Sort the spots of slides by batch, section and place, and find their neighbors.

        Parameters
        ----------
        slides
            Raw counts and ``obsm["spatial"]``. They are not changed.
        batches
            The batch of each spot of all slides, one after the other; the same for all spots of a
            section.
        layer, slide_key
            As in :func:`sagefm.tl.embed`.

        Raises
        ------
        InputError
            No raw counts, no coordinates, or no gene in common.
        """
        counts = vstack(shared_expression(slides, layer=layer).counts, format="csr")
        places = np.concatenate([coordinates(slide) for slide in slides])
        size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        sections: list[Positions] = []
        first = 0
        for slide in slides:
            codes = section_codes(slide, slide_key)
            sections += [first + np.flatnonzero(codes == code) for code in np.unique(codes)]
            first += slide.n_obs
        sections = [rows[np.lexsort((size[rows], *places[rows].T))] for rows in sections]
        sections.sort(key=lambda rows: (batches[rows[0]], len(rows), *size[rows]))
        order = np.concatenate(sections)
        neighbors = np.full((len(order), N_NEAREST), -1, dtype=np.int64)
        first = 0
        for rows in sections:
            n_nearest = min(N_NEAREST, len(rows))
            own = slice(first, first + len(rows))
            neighbors[own, :n_nearest] = first + nearest(places[rows], n_nearest)
            first += len(rows)
        counts = csr_matrix(counts[order])
        return cls(
            counts, normalize([counts])[0], neighbors,
            np.repeat(np.arange(len(sections)), [len(rows) for rows in sections]),
            np.unique(batches[order], return_inverse=True)[1].astype(np.int64), order,
        )  # fmt: skip

    def halved(self, seed: int) -> Self:
        """Draw a random half of the counts."""
        counts = self.counts.copy()
        rng = np.random.default_rng(seed)
        counts.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(np.float32)
        return replace(self, counts=counts, expression=normalize([counts])[0])

    def batch(self, code: int) -> Self:
        """Get the sections of one batch."""
        rows = np.flatnonzero(self.batches == code)
        near = self.neighbors[rows]
        return type(self)(
            self.counts[rows], self.expression[rows], np.where(near < 0, -1, near - rows[0]),
            self.sections[rows] - self.sections[rows[0]], np.zeros(len(rows), dtype=np.int64),
            self.order[rows],
        )  # fmt: skip

    def mean(self, first: int, last: int) -> csr_matrix:
        """Average over the nearest spots from one number to another (0: the spot itself).

        A spot whose section has no such spots stands for itself.
        """
        near = self.neighbors[:, first:last].copy()
        near[(near < 0).all(axis=1), 0] = np.flatnonzero((near < 0).all(axis=1))
        return self.weighted(near, (near >= 0).astype(np.float64))

    def weighted(self, near: Positions, weights: Floats) -> csr_matrix:
        """Average over spots with weights, which are scaled to sum 1: spots × spots."""
        weights = weights / weights.sum(axis=1, keepdims=True)
        rows = np.repeat(np.arange(len(near)), near.shape[1])
        used = (near >= 0).ravel()
        entries = (weights.ravel()[used], (rows[used], near.ravel()[used]))
        return csr_matrix(entries, shape=(len(near), len(near)), dtype=np.float32)
