"""A slide whose counts stay on disk, aligned to a vocabulary."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._progress import stage
from sagefm._types import Bools, Codes, Floats, Positions
from sagefm.pp.aligned import AlignedSlide, indicator, rank_by_place, sort_indices
from sagefm.pp.columns import ColumnMap, remapped
from sagefm.pp.counts import coordinates
from sagefm.pp.curve import along_curve
from sagefm.pp.neighborhood import nearest
from sagefm.pp.on_disk import CountsOnDisk, counts_on_disk
from sagefm.pp.sections import section_codes
from sagefm.pp.vocabulary import Alignment, Vocabulary
from sagefm.stats.sums import column_sums, row_sums

if TYPE_CHECKING:
    from anndata import AnnData

TILE = 1 << 24
"""Values of the counts of a tile, without those around it: 128 MB."""
_MOST = 1 << 15
"""Spots of a tile at most."""


class StreamedBlock(NamedTuple):
    """Some spots, as they are read."""

    spots: Positions
    counts: csr_matrix
    """Spots × vocabulary."""
    library_size: Floats
    """(spots) counts over all genes of the slide."""


class SlideSums:
    """Sums over a slide that is read block by block.

    Attributes
    ----------
    library_size
        (spots) counts over all genes of the slide.
    size
        (spots) counts over the genes of the vocabulary.
    total
        Sections × genes of the vocabulary: counts over all spots.
    """

    def __init__(self, sections: Codes, n_genes: int) -> None:
        self._sections = sections
        self.library_size, self.size = np.zeros(len(sections)), np.zeros(len(sections))
        self.total = np.zeros((int(sections.max()) + 1, n_genes))

    def add(self, block: StreamedBlock) -> None:
        """Add a block of spots."""
        self.library_size[block.spots] = block.library_size
        self.size[block.spots] = row_sums(block.counts)
        own = self._sections[block.spots]
        for number in np.unique(own):
            rows = own == number
            self.total[number] += column_sums(block.counts, rows)

    def save(self, n_blocks: int) -> Floats:
        """Put everything into one array, with the number of blocks that were added."""
        return np.concatenate([[n_blocks], self.library_size, self.size, self.total.ravel()])

    def load(self, saved: Floats) -> int:
        """Take over what was saved, and return the number of blocks."""
        ends = np.cumsum([1, len(self.library_size), len(self.size)])
        n_blocks, library_size, size, total = np.split(saved, ends)
        self.total = total.reshape(self.total.shape)
        self.library_size, self.size = library_size, size
        return int(n_blocks[0])


class StreamedSlide:
    """A slide whose counts stay on disk, with its neighborhoods.

    Parameters
    ----------
    source
        Spots × genes of the slide.
    alignment
        How these map to the vocabulary.
    points
        Coordinates of the spots.
    sections
        For each spot the number of its section, from 0.
    n_neighbors
        Spots in a neighborhood, the center included.
    """

    def __init__(
        self,
        source: CountsOnDisk,
        alignment: Alignment,
        points: Floats,
        sections: Codes,
        n_neighbors: int,
    ) -> None:
        self._source, self.alignment, self._points = source, alignment, points
        self.sections = sections
        self.neighbors = nearest(points, n_neighbors, sections)
        self.rank = rank_by_place(points, sections)
        self.measured = alignment.measured
        self._genes = ColumnMap(alignment.columns, len(alignment.vocabulary))
        self._sums: SlideSums | None = None

    def __len__(self) -> int:
        """Count the spots."""
        return len(self.sections)

    @classmethod
    def of(
        cls,
        slide: "AnnData",
        vocabulary: Vocabulary,
        n_neighbors: int,
        *,
        layer: str | None = None,
        slide_key: str | None = None,
    ) -> Self | None:
        """Align a slide whose counts are on disk; None for any other.

        Raises
        ------
        InputError
            As :meth:`AlignedSlide.of`; the file of the counts is gone or was changed.
        """
        source = counts_on_disk(slide, layer)
        if source is None:
            return None
        stage("aligning the genes and finding the neighborhoods of %s spots", f"{slide.n_obs:,}")
        ids = slide.var["gene_ids"].astype(str).tolist() if "gene_ids" in slide.var else None
        alignment = vocabulary.align(slide.var_names.astype(str).tolist(), ids)
        return cls(
            source, alignment, coordinates(slide), section_codes(slide, slide_key), n_neighbors
        )

    def without(self, genes: Positions) -> Self:
        """Treat some genes of the vocabulary as not measured."""
        fewer = copy(self)
        fewer.measured = self.measured.copy()
        fewer.measured[genes] = False
        columns = np.where(fewer.measured[self._genes.places], self._genes.places, -1)
        fewer._genes = ColumnMap(columns.astype(np.int32), self._genes.n_places)
        fewer._sums = None
        return fewer

    def blocks(self, first: int = 0) -> Iterator[StreamedBlock]:
        """Go through all spots once, in the order of the file, from block `first` on."""
        for spots, counts in self._source.blocks(first):
            aligned = remapped(counts, self._genes)
            if not self._genes.ascending:  # sums of float32 depend on their order
                sort_indices(aligned)
            yield StreamedBlock(spots, aligned, row_sums(counts))

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self._source.n_blocks

    @property
    def sums(self) -> SlideSums:
        """Sums over the slide; the whole slide is read for them, if that was not done."""
        if self._sums is None:
            sums = SlideSums(self.sections, self._genes.n_places)
            for block in self.blocks():
                sums.add(block)
            self.settle(sums)
            return sums
        return self._sums

    def settle(self, sums: SlideSums) -> None:
        """Keep the sums of the whole slide.

        Raises
        ------
        InputError
            Too few genes are in the vocabulary, or they carry too few of the counts.
        """
        self._sums = sums
        self.alignment.require_enough(self.fraction_of_counts)

    @property
    def library_size(self) -> Floats:
        """(spots) counts over all genes of the slide."""
        return self.sums.library_size

    @property
    def section_totals(self) -> Floats:
        """Sections × vocabulary: counts over all spots."""
        return self.sums.total

    @property
    def fraction_of_counts(self) -> float:
        """Fraction of the counts of the slide that lie on genes of the vocabulary."""
        total = float(self.sums.library_size.sum())
        return float(self.sums.size.sum()) / total if total else 0.0

    @property
    def summary(self) -> str:
        """One line about the alignment."""
        return self.alignment.describe(self.fraction_of_counts)

    def totals(self, chosen: Bools) -> Floats:
        """Read some spots once and sum their counts: sets × spots → sets × genes."""
        spots = np.flatnonzero(chosen.any(axis=0))
        totals = np.zeros((len(chosen), self._genes.n_places))
        for at, counts in self._source.of(spots).blocks():
            members = csr_matrix(chosen[:, spots[at]].astype(np.float64))
            totals += (members @ remapped(counts, self._genes)).toarray()
        return totals

    def without_each(self, groups: Sequence[Positions]) -> list[Self]:
        """Treat each group of genes as not measured, one after the other.

        All sums are computed by reading the slide once.
        """
        in_groups = self.group_sums(groups)
        fewer = []
        for genes, in_group in zip(groups, in_groups.T, strict=True):
            sums = copy(self.sums)
            sums.size = self.sums.size - in_group
            sums.total = self.sums.total.copy()
            sums.total[:, genes] = 0
            fewer.append(self.without(genes))
            fewer[-1]._sums = sums
        return fewer

    def group_sums(self, groups: Sequence[Positions]) -> Floats:
        """Read the slide once and sum the counts of groups of genes: spots × groups."""
        members = indicator(groups, self._genes.n_places)
        sums = np.zeros((len(self), len(groups)))
        for block in self.blocks():
            sums[block.spots] = (block.counts @ members).toarray()
        return sums

    def tiles(self, spots: Positions | None = None) -> Iterator[Positions]:
        """Divide spots into compact parts of a section, along a space-filling curve.

        Parameters
        ----------
        spots
            Some spots; all if not given.
        """
        spots = np.arange(len(self)) if spots is None else spots
        sizes = self._source.sizes()
        for number in np.unique(self.sections[spots]):
            own = spots[self.sections[spots] == number]
            own = own[along_curve(self._points[own])]
            full = np.cumsum(sizes[own]) // TILE + np.arange(len(own)) // _MOST
            yield from np.split(own, np.flatnonzero(np.diff(full)) + 1)

    def tile(self, centers: Positions, others: Positions) -> tuple[AlignedSlide, Positions]:
        """Read some spots with their neighborhoods, and other spots of the section.

        Returns
        -------
        A slide of these spots whose `neighbors` are those of `centers`, and the row of each of them
        in this slide.
        """
        neighbors = self.neighbors[centers]
        rows = np.union1d(neighbors, others)
        tile = AlignedSlide(
            counts=remapped(self._source.take(rows), self._genes),
            neighbors=np.searchsorted(rows, neighbors),
            measured=self.measured,
            sections=np.zeros(len(rows), dtype=np.int64),
            library_size=self.sums.library_size[rows],
            rank=self.rank[rows],
            alignment=self.alignment,
        )
        return tile, rows


AnyAligned = AlignedSlide | StreamedSlide
"""A slide in memory, or one whose counts stay on disk."""
