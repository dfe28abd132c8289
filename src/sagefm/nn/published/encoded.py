"""A slide as the published network reads it: one mean over the neighborhood, center included."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, Parts, Where
from sagefm.nn.published.gradient import mean_gradient, path_gradient
from sagefm.nn.published.network import Published
from sagefm.nn.published.responses import Responses
from sagefm.nn.sparse import SparseRows, columns_of, sum_over

_BLOCK = 1024
"""Spots whose hidden layers are kept for a derivative."""


class PublishedCenters(Centers):
    """Some spots as the published network sees them.

    Parameters
    ----------
    pooled
        Centers × width, from :meth:`Published.pool`.
    size
        Spots of a neighborhood.
    """

    def __init__(self, network: Published, pooled: Tensor, size: int) -> None:
        self._network, self.pooled, self._size = network, pooled, size

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        return self._network.decode(self._network.embed(self.pooled), genes)

    @property
    def shares(self) -> NDArray[np.float64]:
        """One operator, in which all spots count the same."""
        return np.full((1, len(self.pooled), self._size), 1 / self._size)

    @cached_property
    def _responses(self) -> Responses:
        return Responses(self._network, self.pooled)

    def unchanged(self, wanted: Tensor) -> Tensor:
        """Predict as things are."""
        return self._responses.unchanged(wanted)

    def changed(self, genes: Tensor, change: Tensor, wanted: Tensor) -> Tensor:
        """Predict after genes were changed."""
        return self._responses.changed(genes, change[0], wanted)

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        gradient = mean_gradient(self._network, self.pooled, targets, progress)
        center = 1 / self._size
        return {"neighbors": gradient * (1 - center), "center": gradient * center}


class EncodedByPublished(EncodedSlide):
    """A slide behind the first layer of the published network.

    Parameters
    ----------
    expression
        Spots × genes, log1p counts, float32.
    """

    def __init__(self, network: Published, expression: csr_matrix) -> None:
        self._network, self._expression = network, expression

    @cached_property
    def _projected(self) -> Tensor:
        rows = SparseRows.from_scipy(self._expression, self._network.device)
        return self._network.project(rows)

    def centers(self, neighbors: Positions, hidden: MaskedGenes | None = None) -> PublishedCenters:
        """See some centers."""
        part = None if hidden is None else self._hidden(neighbors, hidden)
        around = torch.from_numpy(neighbors).to(self._network.device)
        pooled = self._network.pool(self._projected, around, part)
        return PublishedCenters(self._network, pooled, neighbors.shape[1])

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers: what stands before the decoder."""
        return self._network.embed(self.centers(neighbors).pooled)

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Say which genes set the embedding of one center apart, by integrated gradients."""
        weights = self._network.first.detach()
        before, after = self._inputs(baseline), self._inputs(neighbors[None])
        start, end = (
            torch.from_numpy(center + around).to(weights.device) @ weights
            for center, around in (before, after)
        )
        by_gene = (weights @ path_gradient(self._network, start, end, steps)).cpu().numpy()
        return (after[0] - before[0]) * by_gene, (after[1] - before[1]) * by_gene

    def _inputs(self, neighbors: Positions) -> Parts:
        """Give what the centers and their neighbors put into the pooled input, on average."""
        n_centers, size = neighbors.shape
        whole = sum_over(self._expression, neighbors).sum(axis=0) / (n_centers * size)
        own = self._expression[neighbors[:, 0]].sum(axis=0) / (n_centers * size)
        center, total = (np.asarray(part, dtype=np.float32).ravel() for part in (own, whole))
        return center, total - center

    def pull_back(self, neighbors: Positions, given: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once."""
        total = given.new_zeros(len(given), self._network.widths[0])
        with torch.inference_mode():
            inputs = self.centers(neighbors).pooled
        for start in range(0, len(inputs), _BLOCK):
            block = slice(start, start + _BLOCK)
            pooled = inputs[block].clone().requires_grad_()
            found = self._network.embed(pooled)
            for row, wanted in zip(total, given[:, block], strict=True):
                row += torch.autograd.grad(found, pooled, wanted, retain_graph=True)[0].sum(dim=0)
        return total

    def _hidden(self, neighbors: Positions, hidden: MaskedGenes) -> SparseRows | None:
        """Add up the log1p counts that are not shown, over the center or the neighborhood."""
        members = neighbors if hidden.around else neighbors[:, :1]
        part = sum_over(columns_of(self._expression, hidden.genes), members)
        if hidden.mask is not None:
            rows = np.repeat(np.arange(len(members)), np.diff(part.indptr))
            part.data *= hidden.mask[rows, part.indices]
        genes = hidden.genes.astype(part.indptr.dtype)[part.indices]
        full = csr_matrix((part.data, genes, part.indptr), shape=(len(members), self._n_genes))
        full.eliminate_zeros()
        return SparseRows.from_scipy(full, self._network.device) if full.nnz else None

    @property
    def _n_genes(self) -> int:
        return int(self._expression.shape[1])
