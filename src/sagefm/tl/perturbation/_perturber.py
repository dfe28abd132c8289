"""Change genes in neighborhoods and predict other genes in their centers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csc_matrix, csr_matrix

from sagefm._types import Floats, Positions, Where
from sagefm.nn import EncodedSlide, MaskedGenes
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
    """

    def __init__(
        self,
        encoded: EncodedSlide,
        log1p: csr_matrix | csc_matrix,
        neighbors: Positions,
        masked: Positions,
    ) -> None:
        with torch.inference_mode():
            self._centers = encoded.centers(neighbors, MaskedGenes(masked))
        n_spots, n_genes = log1p.shape
        self._log1p = log1p
        self._in_center, self._in_neighbors = (
            _operators(self._centers.weights[:, :, places], neighbors[:, places], n_spots)
            for places in (slice(0, 1), slice(1, None))
        )
        self._n_centers = len(neighbors)
        self._unmasked = np.ones(n_genes)
        self._unmasked[masked] = 0

    def aggregate(self, change: Floats, genes: Positions, where: Where) -> Floats:
        """Average changes over neighborhoods: operators × centers × genes.

        Parameters
        ----------
        change
            All spots of the slide × `genes`: difference in log1p counts.
        genes
            Positions. Genes that are masked in the center do not change there.
        where
            ``"neighbors"``, ``"center"`` or ``"neighborhood"``, which is both.
        """
        total = np.zeros((self._in_neighbors.shape[0], len(genes)))
        if where != "center":
            total += self._in_neighbors @ change
        if where != "neighbors":
            total += (self._in_center @ change) * self._unmasked[genes]
        return self._by_operator(total)

    @torch.inference_mode()
    def predict(self, genes: Positions, change: Floats, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` after aggregated changes of `genes`: centers × wanted, log1p counts."""
        moved = torch.from_numpy(change.astype(np.float32)).to(self._device)
        return self._centers.changed(self._at(genes), moved, self._at(wanted))

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
        before = self._by_operator((self._in_neighbors @ self._log1p[:, genes]).toarray())
        whole = self._by_operator(np.asarray(self._in_neighbors.sum(axis=1)))
        for i, gene in enumerate(genes):
            changes = (level * whole - before[:, :, [i]] for level in levels[i])
            predicted = (self.predict(np.array([gene]), change, wanted[i]) for change in changes)
            means = [values.mean(dim=0, dtype=torch.float64) for values in predicted]
            yield torch.stack(means).cpu().numpy()

    def _by_operator(self, values: Floats) -> Floats:
        return values.reshape(-1, self._n_centers, values.shape[1])

    @property
    def _device(self) -> torch.device:
        return self._centers.pooled.device

    def _at(self, positions: Positions) -> torch.Tensor:
        return torch.from_numpy(positions).to(self._device)


def _operators(weights: Floats, members: Positions, n_spots: int) -> csr_matrix:
    """Build the weighted sums over some members of each neighborhood.

    Parameters
    ----------
    weights
        Operators × centers × members.
    members
        Centers × members, rows of the slide.

    Returns
    -------
    (Operators × centers) × spots, all centers of the first operator first.
    """
    n_operators, n_centers, n_members = weights.shape
    rows = np.tile(members.ravel(), n_operators)
    ends = np.arange(0, weights.size + 1, n_members)
    operators = csr_matrix((weights.ravel(), rows, ends), shape=(n_operators * n_centers, n_spots))
    operators.eliminate_zeros()
    return operators
