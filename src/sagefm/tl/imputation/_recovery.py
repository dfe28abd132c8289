"""Score predictions of masked genes, and estimate those of genes that are not measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from sagefm._types import Bools, Codes, Floats, Positions, Singles, Where
from sagefm.nn.sparse import columns_of
from sagefm.pp.curve import along_curve
from sagefm.pp.neighborhood import average
from sagefm.stats.genes import GeneSums, GeneTally
from sagefm.stats.poisson import log1p_mean, log1p_variance, rate_of

if TYPE_CHECKING:
    from sagefm.model import SageFM
    from sagefm.pp.streamed import AnyAligned

_BLOCK = 4096
"""Spots whose predictions are in memory together."""
_SIMILAR = 50
"""Number of measured genes from which the recovery of another gene is estimated."""
_LEAST = 1e-4
"""Log1p counts; rarer genes are all alike."""
_AREAS, _SPOTS_PER_AREA = 20, 6
"""Areas of a section that are left out in turn for standard errors: at most so many, and fewer on a
small section (with 3 spots in each, the tails of the test are too light)."""


@dataclass(frozen=True)
class MaskedBlock:
    """Genes that are masked in some spots, predicted and measured: spots × genes, log1p counts."""

    spots: slice | Positions
    """Which of the spots that are predicted."""
    genes: Positions
    """Which of the genes that are predicted."""
    predicted: Singles
    truth: Singles
    neighbor_mean: Singles
    library_size: Floats
    """(spots) counts of each center without those of the masked genes."""
    from_library_size: Singles
    """What the library size alone predicts: the mean profile of the section, scaled to it."""


def masked_blocks(
    model: "SageFM",
    aligned: "AnyAligned",
    spots: Positions,
    genes: Positions,
    groups: Sequence[Positions],
    where: Where,
    *,
    adapt: bool = False,
    seed: int = 0,
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
    where, adapt, seed
        As for :meth:`sagefm.SageFM.predict_masked`.
    """
    wanted = [genes[group] for group in groups]
    in_groups = aligned.group_sums(wanted)
    totals = aligned.section_totals
    for block in model.predict_masked(
        aligned, wanted, where=where, spots=spots, block_size=_BLOCK, adapt=adapt, seed=seed
    ):
        group = wanted[block.group]
        visible = np.maximum(aligned.library_size - in_groups[:, block.group], 0.0)
        rates = _section_rates(totals[:, group], visible, aligned.sections)
        centers = spots[block.spots]
        members, place = np.unique(block.neighbors, return_inverse=True)
        neighbors = place.reshape(block.neighbors.shape)
        log1p = columns_of(block.slide.counts[members], group).log1p()
        operator = average(neighbors, center=False, n_spots=len(members))
        yield MaskedBlock(
            spots=block.spots,
            genes=groups[block.group],
            predicted=block.log1p,
            truth=log1p[neighbors[:, 0]].toarray(),
            neighbor_mean=(operator @ log1p).toarray(),
            library_size=visible[centers],
            from_library_size=log1p_mean(
                rates[aligned.sections[centers]] * visible[centers][:, None]
            ),
        )


def _section_rates(totals: Floats, library_size: Floats, sections: Codes) -> Floats:
    """Divide counts of genes by the library size: sections × genes, from sections × genes."""
    sizes = np.bincount(sections, library_size, len(totals))
    return np.asarray(totals / np.maximum(sizes, 1.0)[:, None])


def areas_of(points: Floats, sections: Codes) -> Codes:
    """Split each section into at most 20 compact areas of equal size; give the area of a spot."""
    areas = np.empty(len(sections), dtype=np.int64)
    for number in np.unique(sections):
        rows = np.flatnonzero(sections == number)
        n_areas = min(max(len(rows) // _SPOTS_PER_AREA, 2), _AREAS)
        areas[rows[along_curve(points[rows])]] = np.arange(len(rows)) * n_areas // len(rows)
    return areas


class GeneRecovery:
    """Scores of masked genes; correlations are means over sections.

    Parameters
    ----------
    sections
        For each spot the number of its section.
    n_genes
        How many genes.
    areas
        For each spot its area in the section, to be left out for :meth:`p_beats_neighbors`.
    """

    def __init__(self, sections: Codes, n_genes: int, areas: Codes | None = None) -> None:
        areas = np.zeros_like(sections) if areas is None else areas
        self._n_genes = n_genes
        self._areas, self._area = np.unique(
            np.column_stack([sections, areas]), axis=0, return_inverse=True
        )
        self._area = self._area.ravel()
        self._model_sums = [GeneSums.zeros(n_genes) for _ in self._areas]
        self._neighbor_sums = [GeneSums.zeros(n_genes) for _ in self._areas]
        self._beyond_sums = [GeneSums.zeros(n_genes) for _ in self._areas]
        self._detected = np.zeros(n_genes)

    def add(self, block: MaskedBlock) -> None:
        """Add a block; every gene of every spot is added once."""
        self._detected[block.genes] += (block.truth > 0).sum(axis=0)
        areas, library = self._area[block.spots], np.log1p(block.library_size)
        for number in np.unique(areas).tolist():
            rows = slice(None) if len(self._areas) == 1 else areas == number
            truth, size = block.truth[rows], library[rows]
            for sums, predicted in (
                (self._model_sums, block.predicted),
                (self._neighbor_sums, block.neighbor_mean),
            ):
                sums[number].add(GeneSums.of(truth, predicted[rows], size), block.genes)
            if len(self._areas) > 1:
                beyond = _sums_beyond(truth, block.predicted[rows], block.from_library_size[rows])
                self._beyond_sums[number].add(beyond, block.genes)

    @property
    def detected(self) -> Floats:
        """Fraction of the spots with a count of each gene."""
        return self._detected / len(self._area)

    @property
    def predicted(self) -> Floats:
        """Describe the prediction of each gene, without its truth: genes × 3.

        How common the gene is predicted to be, how much of the variance of its counts the
        prediction would be if it were right, and how much it follows the library size.
        """
        sections = self._of_sections(self._model_sums)
        mean = sum(sums.p for sums in sections) / len(self._area)
        weights = [sums.n / len(self._area) for sums in sections]
        varies = sum(w * s.predicted_variance() for w, s in zip(weights, sections, strict=True))
        follows = sum(w * s.library_predicted() for w, s in zip(weights, sections, strict=True))
        noise = log1p_variance(rate_of(mean))
        strength = np.sqrt(varies / np.maximum(varies + noise, _LEAST))
        return np.column_stack([np.log(np.maximum(mean, _LEAST)), strength, follows])

    @property
    def varies(self) -> Bools:
        """Whether the prediction of each gene varies within a section."""
        constant = [sums.constant_prediction for sums in self._of_sections(self._model_sums)]
        return np.asarray(~np.all(constant, axis=0))

    def scores(self) -> dict[str, Floats]:
        """Compute correlations and errors, by column of the table of confidence.

        NaN if the truth is constant in all sections; 0 for a constant prediction.
        """
        sections = self._of_sections(self._model_sums)
        model = self._tally(sections)
        neighbor_mean = self._tally(self._of_sections(self._neighbor_sums))
        library = np.sum([np.nan_to_num(s.library_pearson()) for s in sections], axis=0)
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

    def p_beats_neighbors(self) -> Floats:
        """Test whether the model beats the neighbor mean, and not only by the library size.

        Returns
        -------
        For each gene the larger p of two one-sided t tests: the correlation of the model is above
        that of the neighbor mean, and it is above 0 when what the library size predicts is removed
        (of a count, not linear: a gene that follows the library size must not pass). The standard
        errors are of a jackknife over areas. 1 where the truth is constant, or without one area.
        """
        gains, variances, freedom = [], [], 0
        for number in np.unique(self._areas[:, 0]):
            areas = np.flatnonzero(self._areas[:, 0] == number)
            gain = self._gains(areas)
            left_out = np.stack([self._gains(np.setdiff1d(areas, [area])) for area in areas])
            varies = np.isfinite(gain[0])
            gains.append(np.where(varies, gain, 0.0))
            variance = left_out.var(axis=0) * (len(areas) - 1)
            variances.append(np.where(varies, variance, 0.0))
            freedom += len(areas) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.sum(gains, axis=0) / np.sqrt(np.sum(variances, axis=0))
        return np.asarray(np.nan_to_num(stats.t.sf(t, freedom), nan=1.0).max(axis=0))

    def _gains(self, areas: Positions) -> Floats:
        """Compute, over some areas of a section, what the model adds to neighbors and library size.

        Returns
        -------
        2 × genes; NaN where the truth is constant.
        """
        model, neighbors = (self._sum(s, areas) for s in (self._beyond_sums, self._neighbor_sums))
        return np.stack([model.pearson() - neighbors.pearson(), model.depth_removed()])

    def _sum(self, sums: Sequence[GeneSums], areas: Positions) -> GeneSums:
        total = GeneSums.zeros(self._n_genes)
        for area in areas.tolist():
            total.add(sums[area])
        return total

    def _of_sections(self, sums: Sequence[GeneSums]) -> list[GeneSums]:
        numbers = self._areas[:, 0]
        return [self._sum(sums, np.flatnonzero(numbers == number)) for number in np.unique(numbers)]

    def _tally(self, sections: Sequence[GeneSums]) -> GeneTally:
        tally = GeneTally.begin(self._n_genes)
        for sums in sections:
            tally.add(sums, np.arange(self._n_genes))
        return tally


def _sums_beyond(truth: Singles, predicted: Singles, from_library_size: Singles) -> GeneSums:
    """Sum over spots × genes, with a prediction for each gene in place of the library size."""
    t, p, d = (values.astype(np.float64) for values in (truth, predicted, from_library_size))
    tt, dd, td, pp, tp, pd = (
        np.einsum("ij,ij->j", a, b) for a, b in ((t, t), (d, d), (t, d), (p, p), (t, p), (p, d))
    )
    sum_t, sum_d, sum_p = (values.sum(axis=0) for values in (t, d, p))
    n = np.full(t.shape[1], float(len(t)))
    return GeneSums(n, sum_t, tt, sum_d, dd, td, sum_p, pp, tp, pd, np.zeros_like(n))


def similar_genes(predicted: Floats, measured: Floats) -> Positions:
    """Find the measured genes whose predictions are most similar to those of other genes.

    Parameters
    ----------
    predicted
        Genes × descriptions, as :attr:`GeneRecovery.predicted`.
    measured
        The same of measured genes.

    Returns
    -------
    For each gene the rows of the 50 nearest measured genes, or of as many as there are.
    """
    scale = np.maximum(measured.std(axis=0), _LEAST)
    nearest = np.arange(1, min(_SIMILAR, len(measured)) + 1)
    return np.asarray(cKDTree(measured / scale).query(predicted / scale, nearest)[1])
