"""Counts of many spots, read some rows at a time: the whole is never copied or dense."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from sagefm._types import Floats, Positions
from sagefm.pp.columns import ColumnMap, remapped
from sagefm.pp.counts import counts, sum_duplicates
from sagefm.pp.expression import common_genes, require_detected
from sagefm.pp.on_disk import CountsOnDisk, counts_on_disk
from sagefm.stats.sums import row_sums

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 4096
Source = csr_matrix | CountsOnDisk
"""Spots × genes of a slide, in memory or on disk."""


@dataclass(frozen=True)
class SpotCounts:
    """Raw counts of the spots of all slides, one after the other, on the genes in common.

    Attributes
    ----------
    sources
        For each slide its counts.
    columns
        For each slide where its genes are among those in common.
    sizes
        Counts of each spot.
    """

    sources: Sequence[Source]
    columns: Sequence[ColumnMap]
    sizes: Floats

    @classmethod
    def of(cls, slides: "Sequence[AnnData]", layer: str | None) -> Self:
        """Find the counts of slides, and the genes in common that are detected in one of them.

        Slides whose counts are on disk are read once.
        """
        sources, names = zip(*(_source(slide, layer) for slide in slides), strict=True)
        common = common_genes(names)
        places = [common.get_indexer(own).astype(np.int32) for own in names]
        columns = [ColumnMap(own, len(common)) for own in places]
        sizes = np.zeros(sum(map(_n_spots, sources)))
        seen = np.zeros(len(common), dtype=bool)
        for at, block in _blocks(sources, columns):
            sizes[at] = row_sums(block)
            seen[block.indices] = True
        detected = np.full(len(common) + 1, -1, dtype=np.int32)  # the last for no gene
        kept = require_detected(seen)
        detected[kept] = np.arange(len(kept))
        return cls(sources, [ColumnMap(detected[own], len(kept)) for own in places], sizes)

    @classmethod
    def of_matrix(cls, matrix: csr_matrix) -> Self:
        """Wrap counts that are in memory."""
        every = np.arange(matrix.shape[1], dtype=np.int32)
        return cls([matrix], [ColumnMap(every, matrix.shape[1])], row_sums(matrix))

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.columns[0].n_places

    def blocks(self) -> Iterator[tuple[Positions, csr_matrix]]:
        """Iterate over all spots: rows, and their counts (float32 spots × genes)."""
        return _blocks(self.sources, self.columns)

    def take(self, rows: Positions) -> csr_matrix:
        """Get the counts of some spots, in the order of `rows`."""
        owner = np.searchsorted(self._ends, rows, side="right")
        taken, places = [], []
        for number in np.unique(owner):
            place = np.flatnonzero(owner == number)
            source, columns = self.sources[number], self.columns[number]
            own = rows[place] - (self._ends[number] - _n_spots(source))
            on_disk = isinstance(source, CountsOnDisk)
            found = source.take(own) if on_disk else source[own]
            taken.append(remapped(found, columns))
            places.append(place)
        if len(taken) == 1:
            return taken[0]
        return csr_matrix(vstack(taken, format="csr")[np.argsort(np.concatenate(places))])

    @cached_property
    def _ends(self) -> Positions:
        return np.cumsum([_n_spots(source) for source in self.sources])


def _source(slide: "AnnData", layer: str | None) -> tuple[Source, pd.Index]:
    """Find the counts of a slide, and the names of its genes."""
    on_disk = counts_on_disk(slide, layer)
    if on_disk is not None:
        return on_disk, slide.var_names
    found = sum_duplicates(counts(slide, layer))
    return found.matrix, found.var.index


def _n_spots(source: Source) -> int:
    return len(source) if isinstance(source, CountsOnDisk) else source.shape[0]


def _blocks(
    sources: Sequence[Source], columns: Sequence[ColumnMap]
) -> Iterator[tuple[Positions, csr_matrix]]:
    first = 0
    for source, own in zip(sources, columns, strict=True):
        blocks = source.blocks() if isinstance(source, CountsOnDisk) else _of_memory(source)
        for spots, block in blocks:
            yield first + spots, remapped(block, own)
        first += _n_spots(source)


def _of_memory(matrix: csr_matrix) -> Iterator[tuple[Positions, csr_matrix]]:
    """Cut a matrix into blocks of rows, without a copy of its values."""
    for start in range(0, matrix.shape[0], _BLOCK):
        ends = matrix.indptr[start : start + _BLOCK + 1]
        values = slice(ends[0], ends[-1])
        parts = (matrix.data[values], matrix.indices[values], ends - ends[0])
        block = csr_matrix(parts, shape=(len(ends) - 1, matrix.shape[1]))
        yield start + np.arange(block.shape[0]), block
