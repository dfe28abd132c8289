"""Change genes in neighborhoods and predict other genes in their centers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csc_matrix, csr_matrix

from sagefm._types import Floats, Hold, Positions, Where
from sagefm.nn import EncodedSlide, MaskedGenes, NeighborhoodChange
from sagefm.pp.neighborhood import average

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

PLACES: tuple[Where, ...] = ("neighbors", "center", "neighborhood")
_GENES = 512
"""Genes whose means over neighborhoods stand in memory together."""


@dataclass(frozen=True)
class GeneFacts:
    """Statistics of every gene of the vocabulary on a slide, in log1p counts."""

    mean: Floats
    detected: Floats
    """Fraction of the spots with a count."""
    low: Floats
    high: Floats
    """The smallest and the largest value on the slide."""

    spread: Floats
    """Standard deviation over spots of the mean of their 14 neighbors."""

    @classmethod
    def of(cls, prepared: "AlignedSlide", by_gene: csc_matrix) -> "GeneFacts":
        """Summarize all spots of a slide; `by_gene` are its log1p counts by columns."""
        expression = prepared.log1p
        n_spots = expression.shape[0]
        detected = np.asarray((expression > 0).sum(axis=0), dtype=np.float64).ravel() / n_spots
        return cls(
            mean=np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel(),
            detected=detected,
            low=expression.min(axis=0).toarray().ravel().astype(np.float64),
            high=expression.max(axis=0).toarray().ravel().astype(np.float64),
            spread=_spread(by_gene, prepared.neighbors),
        )

    def features(self) -> Floats:
        """Stack what genes are matched by: genes × features.

        The spread is one of them because tissue is smooth: a gene that occurs in patches correlates
        with others by chance more often than a scattered one, and a network learns more false
        effects of it.
        """
        return np.stack([self.mean, self.detected, self.high, self.spread], axis=1)

    def levels(self, gene: int, n_levels: int) -> Floats:
        """Space levels equally between a gene's smallest and largest value."""
        return np.linspace(self.low[gene], self.high[gene], n_levels)


def _spread(by_gene: csc_matrix, neighbors: Positions) -> Floats:
    operator = average(neighbors, center=False)
    spreads = []
    for start in range(0, by_gene.shape[1], _GENES):
        averaged = operator @ by_gene[:, start : start + _GENES]
        mean = np.asarray(averaged.mean(axis=0, dtype=np.float64)).ravel()
        square = np.asarray(averaged.multiply(averaged).mean(axis=0, dtype=np.float64)).ravel()
        spreads.append(np.sqrt(np.maximum(square - mean**2, 0)))
    return np.concatenate(spreads)


class Perturber:
    """Predict centers of one slide after genes change in their neighborhoods.

    Parameters
    ----------
    encoded
        The slide.
    log1p
        Its log1p counts; by columns where :meth:`means` is used.
    neighbors
        Spots × 15 row numbers of the slide, the center first.
    masked
        Positions of the genes that are masked in every center.
    hold
        What stays as it is: ``"nothing"`` but the background, or the ``"attention"``, the library
        sizes and the base too.
    """

    def __init__(
        self,
        encoded: EncodedSlide,
        log1p: csr_matrix | csc_matrix,
        neighbors: Positions,
        masked: Positions,
        hold: Hold = "nothing",
    ) -> None:
        with torch.inference_mode():
            self._centers = encoded.centers(neighbors, MaskedGenes(masked))
        self._log1p, self._neighbors = log1p, neighbors
        self._held = self._centers.weights if hold == "attention" else None
        self._unmasked = np.ones(log1p.shape[1])
        self._unmasked[masked] = 0

    def predict(
        self, genes: Positions, after: Floats, wanted: Positions, where: Where = "neighbors"
    ) -> torch.Tensor:
        """Predict genes after others change: versions × centers × wanted, log1p counts.

        Parameters
        ----------
        genes
            Positions. Genes that are masked in the center do not change there.
        after
            Versions × all spots of the slide × `genes`: their log1p counts after the change.
        wanted
            Positions of the genes to predict.
        where
            ``"neighbors"``, ``"center"`` or ``"neighborhood"``, which is both.
        """
        return self._predict(genes, self._before(genes), after, wanted, where)

    @torch.inference_mode()
    def unchanged(self, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` without a change: centers × wanted, log1p counts."""
        return self._centers.unchanged(self._at(wanted))

    def means(
        self, genes: Positions, levels: Floats, wanted: Sequence[Positions]
    ) -> Iterator[Floats]:
        """Set each gene alone to its levels in all neighbors, and average over the spots.

        Parameters
        ----------
        genes
            Positions of the genes to set.
        levels
            Genes × levels: the log1p counts to set each to.
        wanted
            For each of them the genes to predict.

        Yields
        ------
        For each gene, levels × wanted: mean predicted log1p counts.
        """
        before = self._before(genes)
        for i, gene in enumerate(genes):
            own = before[:, [i]]
            after = np.broadcast_to(levels[i][:, None, None], (levels.shape[1], *own.shape))
            predicted = self._predict(np.array([gene]), own, after, wanted[i], "neighbors")
            yield predicted.mean(dim=1, dtype=torch.float64).cpu().numpy()

    @torch.inference_mode()
    def _predict(
        self, genes: Positions, before: Floats, after: Floats, wanted: Positions, where: Where
    ) -> torch.Tensor:
        places = np.zeros((self._neighbors.shape[1], len(genes)))
        if where != "neighbors":
            places[0] = self._unmasked[genes]
        if where != "center":
            places[1:] = 1
        old, new = before[self._neighbors], after[:, self._neighbors]
        at, targets, log1p = self._at(genes), self._at(wanted), (new - old) * places
        if self._held is None:
            counts = (np.expm1(new) - np.expm1(old)) * places
            change = NeighborhoodChange(at, self._singles(log1p), self._singles(counts))
            return self._centers.recomputed(change, targets)
        means = self._singles(np.einsum("rcs,vcsg->vrcg", self._held, log1p))
        return torch.stack([self._centers.changed(at, mean, targets) for mean in means])

    def _before(self, genes: Positions) -> Floats:
        return self._log1p[:, genes].toarray().astype(np.float64)

    def _singles(self, values: Floats) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._centers.pooled.device)

    def _at(self, positions: Positions) -> torch.Tensor:
        return torch.from_numpy(positions).to(self._centers.pooled.device)
