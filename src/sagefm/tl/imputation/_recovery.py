"""Score predictions of masked genes, and estimate those of genes that are not measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from sagefm._types import Bools, Codes, Floats, Positions, Singles, Where
from sagefm.pp.neighborhood import average
from sagefm.stats.genes import GeneSums, GeneTally

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

_BLOCK = 4096
"""Spots whose predictions are in memory together."""
_SIMILAR = 50
"""Number of measured genes from which the recovery of another gene is estimated."""


@dataclass(frozen=True)
class MaskedBlock:
    """Genes that are masked in some spots, predicted and measured: spots × genes, log1p counts."""

    spots: slice
    """Which of the spots that are predicted."""
    genes: Positions
    """Which of the genes that are predicted."""
    predicted: Singles
    truth: Singles
    neighbor_mean: Singles
    library_size: Floats
    """(spots) counts of each center without those of the masked genes."""


def masked_blocks(
    model: "SageFM",
    aligned: "AlignedSlide",
    spots: Positions,
    genes: Positions,
    groups: Sequence[Positions],
    where: Where,
) -> Iterator[MaskedBlock]:
    """Mask and predict one group of genes after the other, with the measured values.

    Parameters
    ----------
    model, aligned
        The model, and a slide aligned to its vocabulary.
    spots
        Rows of the slide.
    genes
        Positions in the vocabulary.
    groups
        Which of `genes` are masked together.
    where
        As for :meth:`sagefm.SageFM.predict_masked`.
    """
    counts, loaded = aligned.counts.tocsc()[:, genes], -1
    for block in model.predict_masked(
        aligned, [genes[group] for group in groups], where=where, spots=spots, block_size=_BLOCK
    ):
        if block.group != loaded:
            columns, loaded = counts[:, groups[block.group]].tocsr(), block.group
            log1p = columns.log1p()
        neighbors = aligned.neighbors[spots[block.spots]]
        centers = neighbors[:, 0]
        masked = columns[centers].sum(axis=1, dtype=np.float64).A1
        operator = average(neighbors, center=False, n_spots=len(aligned.neighbors))
        yield MaskedBlock(
            spots=block.spots,
            genes=groups[block.group],
            predicted=block.log1p,
            truth=log1p[centers].toarray(),
            neighbor_mean=(operator @ log1p).toarray(),
            library_size=np.maximum(aligned.library_size[centers] - masked, 0.0),
        )


class GeneRecovery:
    """Scores of masked genes; correlations are means over sections.

    Parameters
    ----------
    sections
        For each spot the number of its section.
    n_genes
        How many genes.
    """

    def __init__(self, sections: Codes, n_genes: int) -> None:
        self._sections, self._n_genes = sections, n_genes
        self._numbers = np.unique(sections).tolist()
        self._model = {number: GeneSums.zeros(n_genes) for number in self._numbers}
        self._neighbor_mean = {number: GeneSums.zeros(n_genes) for number in self._numbers}
        self._detected = np.zeros(n_genes)

    def add(self, block: MaskedBlock) -> None:
        """Add a block; every gene of every spot is added once."""
        self._detected[block.genes] += (block.truth > 0).sum(axis=0)
        sections, library = self._sections[block.spots], np.log1p(block.library_size)
        for number in np.unique(sections).tolist():
            rows = slice(None) if len(self._numbers) == 1 else sections == number
            truth, size = block.truth[rows], library[rows]
            for sums, predicted in (
                (self._model, block.predicted),
                (self._neighbor_mean, block.neighbor_mean),
            ):
                sums[number].add(GeneSums.of(truth, predicted[rows], size), block.genes)

    @property
    def detected(self) -> Floats:
        """Fraction of the spots with a count of each gene."""
        return self._detected / len(self._sections)

    @property
    def mean_prediction(self) -> Floats:
        """Mean prediction over all spots, log1p counts."""
        sums = self._model.values()
        return np.asarray(sum(s.p for s in sums) / len(self._sections))

    @property
    def varies(self) -> Bools:
        """Whether the prediction of each gene varies within a section."""
        constant = [sums.constant_prediction for sums in self._model.values()]
        return np.asarray(~np.all(constant, axis=0))

    def scores(self) -> dict[str, Floats]:
        """Compute correlations and errors, by column of the table of confidence.

        NaN if the truth is constant in all sections; 0 for a constant prediction.
        """
        model, neighbor_mean = self._tally(self._model), self._tally(self._neighbor_mean)
        library = np.sum([np.nan_to_num(s.library_pearson()) for s in self._model.values()], axis=0)
        varies = model.n_within > 0
        return {
            "r_model": model.r_within,
            "r_neighbor_mean": neighbor_mean.r_within,
            "r_depth": np.divide(
                library, model.n_within, out=np.full_like(library, np.nan), where=varies
            ),
            "r_beyond_depth": model.r_depth_removed,
            "mse_model": model.mse,
            "mse_neighbor_mean": neighbor_mean.mse,
        }

    def _tally(self, sums: dict[int, GeneSums]) -> GeneTally:
        tally = GeneTally.begin(self._n_genes)
        for of_section in sums.values():
            tally.add(of_section, np.arange(self._n_genes))
        return tally


def of_similar(mean: Floats, measured_mean: Floats, values: Floats) -> Floats:
    """Estimate a value of genes from measured genes that are predicted to be as common.

    Parameters
    ----------
    mean
        Mean prediction of each gene, log1p counts.
    measured_mean
        The same of each measured gene.
    values
        The value of each measured gene; those without one (NaN) do not count.

    Returns
    -------
    For each gene the median over the 50 nearest measured genes; NaN where there is none.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(len(mean), np.nan)
    n_similar = min(_SIMILAR, int(finite.sum()))
    tree = cKDTree(measured_mean[finite][:, None])
    _, nearest = tree.query(mean[:, None], np.arange(1, n_similar + 1))
    return np.asarray(np.median(values[finite][nearest], axis=1), dtype=np.float64)
