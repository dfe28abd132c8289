"""What the context network computes of a slide once."""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions, Singles
from sagefm.nn.context.background import Background
from sagefm.nn.context.network import Context
from sagefm.nn.sparse import SparseRows, sum_over


class Slide:
    """A slide with what the network computes of it once, and when it is first asked for.

    Parameters
    ----------
    expression
        Spots × genes, log1p counts, float32.
    measured
        Genes: which of them the slide has.
    """

    def __init__(
        self, network: Context, expression: csr_matrix, measured: NDArray[np.bool_]
    ) -> None:
        self.network, self.device = network, network.device
        self.expression = expression
        counts = np.expm1(expression.data)
        np.rint(counts, out=counts)  # a large slide's take a GB
        self.counts = csr_matrix(
            (counts, expression.indices, expression.indptr), shape=expression.shape
        )
        self.measured = torch.from_numpy(measured).to(self.device)
        self.depths = self._tensor(self.counts.sum(axis=1))
        self.total = self._tensor(self.counts.sum(axis=0))

    def _tensor(self, values: ArrayLike) -> Tensor:
        flat = np.asarray(values, dtype=np.float32).ravel()
        return torch.from_numpy(flat).to(self.device)

    def dense(self, rows: csr_matrix) -> Tensor:
        """Spell out a few rows."""
        return torch.from_numpy(rows.toarray().astype(np.float32, copy=False)).to(self.device)

    @cached_property
    def table(self) -> Background:
        """What is expected of a spot of any depth."""
        return Background.of(self.total, self.depths)

    @cached_property
    def projected(self) -> Tensor:
        """Spots × width: log1p counts behind the first layer."""
        return self.network.project(SparseRows.from_scipy(self.expression, self.device))

    @cached_property
    def expected(self) -> Tensor:
        """Depths × width: the table behind the first layer."""
        return self.table.expected @ self.network.first

    @cached_property
    def residuals(self) -> Tensor:
        """Spots × width: how each spot departs from a draw of its depth from the slide."""
        return self.projected - self.table.weights(self.depths) @ self.expected

    @cached_property
    def keys(self) -> Tensor:
        """Spots × keys."""
        return self.network.keys(self.residuals)

    @cached_property
    def landmarks(self) -> Tensor:
        """(spots) rows that every center is compared with: all of a small slide.

        Of a large one they are evenly spaced by depth. That depends neither on the order of the
        spots nor on the last bits of the weights: sums of counts, and what settles their ties, are
        whole numbers.
        """
        n_spots, most = len(self.depths), self.network.MOST
        if n_spots <= most:
            return torch.arange(n_spots, device=self.device)
        counts = self.counts.astype(np.float64)
        ties = counts @ np.arange(counts.shape[1])
        order = np.lexsort((ties, np.asarray(counts.sum(axis=1)).ravel()))
        chosen = order[np.linspace(0, n_spots - 1, most).round().astype(np.int64)]
        return torch.from_numpy(np.sort(chosen)).to(self.device)

    @cached_property
    def place(self) -> Tensor:
        """(spots) the place of each among the landmarks; behind the last for all others."""
        place = torch.full_like(self.depths, len(self.landmarks), dtype=torch.long)
        place[self.landmarks] = torch.arange(len(self.landmarks), device=self.device)
        return place

    def of_genes(self, rows: Positions) -> Singles:
        """Take what is expected out of log1p counts of a few spots: spots × genes."""
        at = torch.from_numpy(rows).to(self.device)
        expected = self.table.weights(self.depths[at]) @ self.table.expected
        found: Singles = self.expression[rows].toarray() - expected.cpu().numpy()
        return found

    def mean_of_genes(self, neighbors: Positions) -> Singles:
        """Average the residuals of genes over all spots of some neighborhoods."""
        at = torch.from_numpy(neighbors.ravel()).to(self.device)
        weights = self.table.weights(self.depths[at]).mean(dim=0)
        total = self._tensor(sum_over(self.expression, neighbors).sum(axis=0))
        found: Singles = (total / neighbors.size - weights @ self.table.expected).cpu().numpy()
        return found
