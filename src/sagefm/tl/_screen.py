"""A slide under perturbation: genes change around spots, other genes are read in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.nn import SparseRows
from sagefm.nn.perturb import Responses
from sagefm.pp.neighborhood import average

if TYPE_CHECKING:
    from sagefm.model import Prepared, SageFM

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
Where = Literal["neighbors", "center", "both"]
_GENES = 512
"""Genes whose means over neighborhoods stand in memory together."""


@dataclass(frozen=True)
class GeneFacts:
    """What a slide says of every gene of the vocabulary; log1p counts."""

    mean: Floats
    detected: Floats
    """Share of the spots with a count."""
    low: Floats
    high: Floats
    """The smallest and the largest value on the slide."""

    spread: Floats
    """Standard deviation over spots of the mean of their 14 neighbors."""

    @classmethod
    def of(cls, expression: csr_matrix, neighbors: Positions) -> "GeneFacts":
        """Look at all spots of a slide: spots × vocabulary, log1p counts; spots × 15 rows."""
        n_spots = expression.shape[0]
        detected = np.asarray((expression > 0).sum(axis=0), dtype=np.float64).ravel() / n_spots
        return cls(
            mean=np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel(),
            detected=detected,
            low=expression.min(axis=0).toarray().ravel().astype(np.float64),
            high=expression.max(axis=0).toarray().ravel().astype(np.float64),
            spread=_spread(expression, neighbors),
        )

    def likeness(self) -> Floats:
        """Say what makes genes alike: genes × features.

        The spread is among them because tissue is smooth: a gene that comes in patches goes with
        others by accident more often than one that is scattered, so that a network learns more
        false effects of it.
        """
        return np.stack([self.mean, self.detected, self.high, self.spread], axis=1)

    def levels(self, gene: int, n_levels: int) -> Floats:
        """Space levels equally between a gene's smallest and largest value."""
        return np.linspace(self.low[gene], self.high[gene], n_levels)


def _spread(expression: csr_matrix, neighbors: Positions) -> Floats:
    operator, by_gene = average(neighbors, center=False), expression.tocsc()
    parts = []
    for start in range(0, expression.shape[1], _GENES):
        around = operator @ by_gene[:, start : start + _GENES]
        mean = np.asarray(around.mean(axis=0, dtype=np.float64)).ravel()
        square = np.asarray(around.multiply(around).mean(axis=0, dtype=np.float64)).ravel()
        parts.append(np.sqrt(np.maximum(square - mean**2, 0)))
    return np.concatenate(parts)


class Screen:
    """Spots of one slide, with the genes that are read hidden in each of them.

    Parameters
    ----------
    model, prepared
        The model, and the slide as it sees it.
    neighbors
        Spots × 15 row numbers of the slide, the center first.
    hidden
        Positions of the genes that no center shows.
    """

    def __init__(
        self, model: "SageFM", prepared: "Prepared", neighbors: Positions, hidden: Positions
    ) -> None:
        network, device = model.network, model.device
        expression = prepared.expression
        self.n_neighbors, self._device = neighbors.shape[1], device
        self._center = neighbors[:, 0]
        keep = np.zeros(expression.shape[1], dtype=np.float32)
        keep[hidden] = 1
        part = csr_matrix(expression[self._center].multiply(keep))
        part.eliminate_zeros()
        with torch.inference_mode():
            projected = network.project(SparseRows.from_scipy(expression, device))
            pooled = network.pool(
                projected,
                torch.from_numpy(neighbors).to(device),
                SparseRows.from_scipy(part.astype(np.float32), device),
            )
        self.responses = Responses(network, pooled)
        self._shown = 1 - keep
        self._expression = expression.tocsc()
        self._sum = average(neighbors, center=False, n_spots=expression.shape[0]) * (
            self.n_neighbors - 1
        )

    def around(self, genes: Positions) -> Floats:
        """Add up log1p counts over the 14 neighbors: spots × genes."""
        return np.asarray((self._sum @ self._expression[:, genes]).toarray(), dtype=np.float64)

    def spread(self, change: Floats, genes: Positions, where: Where) -> Floats:
        """Add up what changes over the neighborhoods: spots × genes.

        Parameters
        ----------
        change
            All spots of the slide × `genes`: by how much a spot changes.
        genes
            Positions. What is hidden in the center does not change there.
        where
            Whether spots change as neighbors, as centers, or as both.
        """
        total = np.zeros((len(self.responses), len(genes)))
        if where != "center":
            total += self._sum @ change
        if where != "neighbors":
            total += change[self._center] * self._shown[genes]
        return total

    def read(self, genes: Positions, change: Floats, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` after the sum over the neighborhood changes: spots × wanted."""
        mean = torch.from_numpy((change / self.n_neighbors).astype(np.float32))
        return self.responses.changed(
            torch.from_numpy(genes).to(self._device), mean.to(self._device), self._at(wanted)
        )

    def unchanged(self, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` as things are: spots × wanted."""
        return self.responses.unchanged(self._at(wanted))

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
            For each of them what to read.

        Yields
        ------
        For each gene, levels × wanted: mean predicted log1p counts.
        """
        around = self.around(genes)
        for i, gene in enumerate(genes):
            read = [
                self.read(
                    np.array([gene]), (self.n_neighbors - 1) * level - around[:, [i]], wanted[i]
                ).mean(dim=0, dtype=torch.float64)
                for level in levels[i]
            ]
            yield torch.stack(read).cpu().numpy()

    def _at(self, wanted: Positions) -> torch.Tensor:
        return torch.from_numpy(wanted).to(self._device)
