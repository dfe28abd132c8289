"""Sums over the counts of a slide, in memory or on disk."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from sagefm._types import Bools, Floats, Positions
from sagefm.pp.counts import find_counts
from sagefm.pp.on_disk import counts_on_disk
from sagefm.stats.sums import row_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class CountSummary:
    """What is known of the raw counts of a slide without looking at single ones.

    Attributes
    ----------
    var
        A row per gene.
    where, note
        As of :class:`~sagefm.pp.counts.Counts`.
    per_spot
        (spots) counts.
    genes_per_spot
        (spots) genes with a count.
    detected
        (genes) whether a spot has a count.
    """

    var: pd.DataFrame
    where: str
    note: str
    per_spot: Floats
    genes_per_spot: Positions
    detected: Bools

    @classmethod
    def of(cls, slide: "AnnData", layer: str | None = None) -> Self:
        """Sum the counts of a slide; those on disk are read once.

        Raises
        ------
        InputError
            As :func:`~sagefm.pp.counts.find_counts`.
        """
        source = counts_on_disk(slide, layer)
        if source is None:
            found = find_counts(slide, layer)
            summary = cls._empty(found.var, found.where, found.note, slide.n_obs)
            summary._add(np.arange(slide.n_obs), found.matrix)
        else:
            summary = cls._empty(slide.var, source.group, "", slide.n_obs)
            for spots, block in source.blocks():
                summary._add(spots, block)
        return summary

    @classmethod
    def _empty(cls, var: pd.DataFrame, where: str, note: str, n_spots: int) -> Self:
        n_genes = np.zeros(n_spots, dtype=np.int64)
        return cls(var, where, note, np.zeros(n_spots), n_genes, np.zeros(len(var), dtype=bool))

    def _add(self, spots: Positions, block: "csr_matrix") -> None:
        self.per_spot[spots] = row_sums(block)
        positive, ends = block.data > 0, block.indptr
        if positive.all():  # no zero is stored
            self.detected[block.indices] = True
        else:
            self.detected[block.indices[positive]] = True
            ends = np.append(0, np.cumsum(positive))[ends]
        self.genes_per_spot[spots] = np.diff(ends)
