"""A slide under perturbation: genes change around spots, other genes are read in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Positions
from sagefm.nn import EncodedSlide, MaskedGenes
from sagefm.pp.neighborhood import average

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

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


class Perturber:
    """Spots of one slide, with the genes that are read hidden in each of them.

    Parameters
    ----------
    reading, prepared
        The slide as the network has read it, and as it was given.
    neighbors
        Spots × 15 row numbers of the slide, the center first.
    hidden
        Positions of the genes that no center shows.
    """

    def __init__(
        self,
        reading: EncodedSlide,
        prepared: "AlignedSlide",
        neighbors: Positions,
        hidden: Positions,
    ) -> None:
        with torch.inference_mode():
            self._centers = reading.centers(neighbors, MaskedGenes(hidden))
        n_spots, n_genes = prepared.log1p.shape
        self._expression = prepared.log1p.tocsc()
        self._at_center, self._around = (
            _operators(self._centers.shares[:, :, places], neighbors[:, places], n_spots)
            for places in (slice(0, 1), slice(1, None))
        )
        self._n_centers = len(neighbors)
        self._shown = np.ones(n_genes)
        self._shown[hidden] = 0

    def spread(self, change: Floats, genes: Positions, where: Where) -> Floats:
        """Add up what changes over the neighborhoods: operators × spots × genes.

        Parameters
        ----------
        change
            All spots of the slide × `genes`: by how much a spot changes.
        genes
            Positions. What is hidden in the center does not change there.
        where
            Whether spots change as neighbors, as centers, or as both.
        """
        total = np.zeros((self._around.shape[0], len(genes)))
        if where != "center":
            total += self._around @ change
        if where != "neighbors":
            total += (self._at_center @ change) * self._shown[genes]
        return self._by_operator(total)

    @torch.inference_mode()
    def read(self, genes: Positions, change: Floats, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` after what the operators average changes: spots × wanted."""
        moved = torch.from_numpy(change.astype(np.float32)).to(self._device)
        return self._centers.changed(self._at(genes), moved, self._at(wanted))

    @torch.inference_mode()
    def unchanged(self, wanted: Positions) -> torch.Tensor:
        """Predict `wanted` as things are: spots × wanted."""
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
            For each of them what to read.

        Yields
        ------
        For each gene, levels × wanted: mean predicted log1p counts.
        """
        before = self._by_operator((self._around @ self._expression[:, genes]).toarray())
        whole = self._by_operator(np.asarray(self._around.sum(axis=1)))
        for i, gene in enumerate(genes):
            changes = (level * whole - before[:, :, [i]] for level in levels[i])
            read = (self.read(np.array([gene]), change, wanted[i]) for change in changes)
            means = [found.mean(dim=0, dtype=torch.float64) for found in read]
            yield torch.stack(means).cpu().numpy()

    def _by_operator(self, values: Floats) -> Floats:
        return values.reshape(-1, self._n_centers, values.shape[1])

    @property
    def _device(self) -> torch.device:
        return self._centers.pooled.device

    def _at(self, positions: Positions) -> torch.Tensor:
        return torch.from_numpy(positions).to(self._device)


def _operators(shares: Floats, members: Positions, n_spots: int) -> csr_matrix:
    """Let each operator add up some members of each neighborhood, by their shares.

    Parameters
    ----------
    shares
        Operators × centers × members.
    members
        Centers × members, rows of the slide.

    Returns
    -------
    One operator's centers after the other's × spots.
    """
    n_operators, n_centers, n_members = shares.shape
    rows = np.tile(members.ravel(), n_operators)
    ends = np.arange(0, shares.size + 1, n_members)
    found = csr_matrix((shares.ravel(), rows, ends), shape=(n_operators * n_centers, n_spots))
    found.eliminate_zeros()
    return found
