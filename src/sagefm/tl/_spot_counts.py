"""Counts of many spots, read some rows at a time: the whole is never copied or dense."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from scipy.sparse import csr_matrix, vstack

from sagefm._types import Floats, Positions
from sagefm.pp.expression import shared_genes

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 4096


class SpotCounts(Protocol):
    """Raw counts of the spots of all slides, one after the other, on the genes in common."""

    @property
    def sizes(self) -> Floats:
        """Counts of each spot."""

    @property
    def n_genes(self) -> int:
        """Number of genes."""

    def blocks(self) -> Iterator[tuple[slice, csr_matrix]]:
        """Iterate over all spots in order: rows, and their counts (float32 spots × genes)."""

    def take(self, rows: Positions) -> csr_matrix:
        """Get the counts of some spots, in the order of `rows`."""


@dataclass(frozen=True)
class CountsInMemory:
    """Counts that are in memory, without a copy.

    Attributes
    ----------
    matrices
        For each slide spots × its own genes.
    columns
        For each slide the columns of the genes in common.
    """

    matrices: Sequence[csr_matrix]
    columns: Sequence[Positions]

    @classmethod
    def of(cls, slides: "Sequence[AnnData]", layer: str | None) -> Self:
        """Find the counts of slides, and their genes in common."""
        shared = shared_genes(slides, layer=layer)
        return cls(shared.matrices, shared.columns)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.columns[0])

    @cached_property
    def sizes(self) -> Floats:
        """Counts of each spot."""
        return np.concatenate(
            [np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() for _, block in self.blocks()]
        )

    def blocks(self) -> Iterator[tuple[slice, csr_matrix]]:
        """Iterate over all spots: rows, and their counts."""
        first = 0
        for matrix, columns in zip(self.matrices, self.columns, strict=True):
            for start in range(0, matrix.shape[0], _BLOCK):
                block = _columns(matrix[start : start + _BLOCK], columns)
                yield slice(first + start, first + start + block.shape[0]), block
            first += matrix.shape[0]

    def take(self, rows: Positions) -> csr_matrix:
        """Get the counts of some spots."""
        ends = np.cumsum([matrix.shape[0] for matrix in self.matrices])
        owner = np.searchsorted(ends, rows, side="right")
        taken, places = [], []
        for at in np.unique(owner):
            place = np.flatnonzero(owner == at)
            matrix = self.matrices[at]
            own = matrix[rows[place] - (ends[at] - matrix.shape[0])]
            taken.append(_columns(own, self.columns[at]))
            places.append(place)
        if len(taken) == 1:
            return taken[0]
        return csr_matrix(vstack(taken, format="csr")[np.argsort(np.concatenate(places))])


def _columns(matrix: csr_matrix, columns: Positions) -> csr_matrix:
    if len(columns) == matrix.shape[1] and (np.diff(columns) == 1).all():
        return matrix
    return csr_matrix(matrix[:, columns])
