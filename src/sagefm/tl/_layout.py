"""Where the spots of all sections are: one order, and their neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Codes, Floats, Positions, Reals
from sagefm.pp.counts import coordinates
from sagefm.pp.curve import along_curve
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData

N_NEAREST = 37
"""On a hexagonal grid: a spot and the rings 1, 2 and 3."""


@dataclass(frozen=True)
class Layout:
    """Spots of one section or of several, sorted so that the order of the input does not matter.

    Attributes
    ----------
    neighbors
        Spots × nearest spots of the same section, the spot first; -1 where there are no more.
    sections, batches
        The section and the batch of each spot, numbers from 0.
    order
        For each spot its row in the slides, one after the other.
    """

    neighbors: Positions
    sections: Codes
    batches: Codes
    order: Positions

    def __len__(self) -> int:
        """Count the spots."""
        return len(self.order)

    def mean(self, first: int, last: int) -> csr_matrix:
        """Average over the nearest spots from one number to another (0: the spot itself).

        A spot whose section has no such spots stands for itself.
        """
        near = self.neighbors[:, first:last].copy()
        near[(near < 0).all(axis=1), 0] = np.flatnonzero((near < 0).all(axis=1))
        return self.weighted(near, (near >= 0).astype(np.float64))

    def weighted(self, near: Positions, weights: Reals) -> csr_matrix:
        """Average over spots with weights, which are scaled to sum 1: spots × spots."""
        weights = weights / weights.sum(axis=1, keepdims=True)
        rows = np.repeat(np.arange(len(near)), near.shape[1])
        used = (near >= 0).ravel()
        entries = (weights.ravel()[used], (rows[used], near.ravel()[used]))
        return csr_matrix(entries, shape=(len(near), len(near)), dtype=np.float32)


def lay_out(
    slides: "Sequence[AnnData]",
    batches: Codes,
    sizes: Floats,
    sections: Sequence[Codes] | None,
    *,
    curve: bool = False,
) -> dict[str, Any]:
    """Sort the spots of slides by batch, section and place, and find their neighbors.

    Parameters
    ----------
    slides, batches, sections
        As for :meth:`sagefm.tl._tissue.Tissue.of`.
    sizes
        Counts of each spot.
    curve
        Whether the spots of a section are sorted along a space-filling curve, so that rows that
        are close are close in the tissue, and consecutive rows are a patch of it.

    Returns
    -------
    The attributes of a :class:`Layout`.
    """
    places = np.concatenate([coordinates(slide) for slide in slides])
    coded = [section_codes(slide) for slide in slides] if sections is None else sections
    own: list[Positions] = []
    first = 0
    for codes in coded:
        own += [first + np.flatnonzero(codes == code) for code in np.unique(codes)]
        first += len(codes)
    own = [rows[np.lexsort((sizes[rows], *places[rows].T))] for rows in own]
    own.sort(key=lambda rows: (len(rows), *sizes[rows]))
    # Batches are numbered by their first section, not as the slides were given.
    number = {code: at for at, code in reversed([*enumerate(batches[r[0]] for r in own)])}
    own.sort(key=lambda rows: number[batches[rows[0]]])
    if curve:
        own = [rows[along_curve(places[rows])] for rows in own]
    order = np.concatenate(own)
    neighbors = np.full((len(order), N_NEAREST), -1, dtype=np.int64)
    first = 0
    for rows in own:
        n_nearest = min(N_NEAREST, len(rows))
        block = neighbors[first : first + len(rows), :n_nearest]
        block[:] = nearest(places[rows], n_nearest)
        block += first
        first += len(rows)
    return {
        "neighbors": neighbors,
        "sections": np.repeat(np.arange(len(own)), [len(rows) for rows in own]),
        "batches": np.unique([number[code] for code in batches[order]], return_inverse=True)[1],
        "order": order,
    }
