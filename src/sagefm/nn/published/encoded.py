"""A slide as the published network encodes it: one mean over the neighborhood, center included."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions, Where
from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, NeighborhoodChange, Parts
from sagefm.nn.published.gradient import mean_gradient, path_gradient
from sagefm.nn.published.network import Published
from sagefm.nn.sparse import SparseRows, columns_of, project_log1p, sum_over

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

_BLOCK = 1024
"""Centers at a time: their hidden layers stay in the processor's cache."""


class PublishedCenters(Centers):
    """Some centers, pooled.

    The first layer is linear: a gene that changes adds a number per center times its row of
    weights. So a change costs the layers behind the first, and centers that it does not reach cost
    nothing. The last layer of the encoder and the decoder are one linear layer for a few genes.

    Parameters
    ----------
    pooled
        Centers × width, from :meth:`Published.pool`.
    size
        Spots of a neighborhood.
    """

    def __init__(self, network: Published, pooled: Tensor, size: int) -> None:
        self._network, self.pooled, self._size = network, pooled, size
        self._readouts: dict[bytes, tuple[Tensor, Tensor]] = {}

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        return self._network.decode(self._network.embed(self.pooled), genes)

    @property
    def weights(self) -> NDArray[np.float64]:
        """One operator, in which all spots have the same weight."""
        return np.full((1, len(self.pooled), self._size), 1 / self._size)

    @cached_property
    def _hidden(self) -> Tensor:
        """Centers × width but one: without a change. A change of all centers does not need it."""
        return torch.cat([self._network.hidden(part) for part in torch.split(self.pooled, _BLOCK)])

    @torch.inference_mode()
    def unchanged(self, targets: Tensor) -> Tensor:
        """Predict without a change."""
        return F.relu(F.linear(self._hidden, *self._readout(targets)))

    @torch.inference_mode()
    def changed(self, genes: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Predict after a change."""
        readout, [change] = self._readout(targets), change
        is_changed = (change != 0).any(dim=1)
        kept = (~is_changed).nonzero().squeeze(1)
        predicted = self.pooled.new_empty(len(self.pooled), len(targets))
        if len(kept):
            predicted[kept] = F.linear(self._hidden[kept], *readout)
        weights = self._network.first[genes]
        for rows in torch.split(is_changed.nonzero().squeeze(1), _BLOCK):
            pooled = torch.addmm(self.pooled[rows], change[rows], weights)
            predicted[rows] = F.linear(self._network.hidden(pooled), *readout)
        return F.relu(predicted)

    def recomputed(self, change: NeighborhoodChange, targets: Tensor) -> Tensor:
        """Predict after a change; nothing but the mean of log1p counts depends on it."""
        means = change.log1p.mean(dim=2)
        return torch.stack([self.changed(change.genes, mean[None], targets) for mean in means])

    def _readout(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        key = targets.cpu().numpy().tobytes()
        if key not in self._readouts:
            self._readouts[key] = self._network.readout(targets)
        return self._readouts[key]

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        gradient = mean_gradient(self._network, self.pooled, targets, progress)
        center = 1 / self._size
        return {"neighbors": gradient * (1 - center), "center": gradient * center}


class PublishedSlide(EncodedSlide):
    """A slide behind the first layer.

    Parameters
    ----------
    slide
        Its counts and log1p counts.
    """

    def __init__(self, network: Published, slide: "AlignedSlide") -> None:
        self._network, self._slide = network, slide

    @cached_property
    def _projected(self) -> Tensor:
        return project_log1p(self._slide.counts, self._network.first)

    def centers(self, neighbors: Positions, masked: MaskedGenes | None = None) -> PublishedCenters:
        """Pool some neighborhoods, without the masked genes."""
        removed = None if masked is None else self._masked_log1p(neighbors, masked)
        rows = torch.from_numpy(neighbors).to(self._network.device)
        pooled = self._network.pool(self._projected, rows, removed)
        return PublishedCenters(self._network, pooled, neighbors.shape[1])

    def _masked_log1p(self, neighbors: Positions, masked: MaskedGenes) -> SparseRows | None:
        """Sum the masked log1p counts over the center, or the neighborhood."""
        members = neighbors if masked.neighbors else neighbors[:, :1]
        sums = sum_over(columns_of(self._slide.log1p, masked.genes), members)
        if masked.mask is not None:
            rows = np.repeat(np.arange(len(members)), np.diff(sums.indptr))
            sums.data *= masked.mask[rows, sums.indices]
        genes = masked.genes.astype(sums.indptr.dtype)[sums.indices]
        shape = (len(members), self._slide.log1p.shape[1])
        log1p = csr_matrix((sums.data, genes, sums.indptr), shape=shape)
        log1p.eliminate_zeros()
        return SparseRows.from_scipy(log1p, self._network.device) if log1p.nnz else None

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers: the input of the decoder."""
        result = self._projected.new_empty(len(neighbors), self._network.widths[-1])
        for start in range(0, len(neighbors), _BLOCK):
            block = slice(start, start + _BLOCK)
            result[block] = self._network.embed(self.centers(neighbors[block]).pooled)
        return result

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Attribute the difference of one embedding to genes, by integrated gradients."""
        weights = self._network.first.detach()
        before, after = self._inputs(baseline), self._inputs(neighbors[None])
        start, end = (
            torch.from_numpy(center + others).to(weights.device) @ weights
            for center, others in (before, after)
        )
        by_gene = (weights @ path_gradient(self._network, start, end, steps)).cpu().numpy()
        return (after[0] - before[0]) * by_gene, (after[1] - before[1]) * by_gene

    def _inputs(self, neighbors: Positions) -> Parts:
        """Average what the centers, and their neighbors, add to the pooled log1p counts."""
        n_centers, size = neighbors.shape
        whole = sum_over(self._slide.log1p, neighbors).sum(axis=0) / (n_centers * size)
        own = self._slide.log1p[neighbors[:, 0]].sum(axis=0) / (n_centers * size)
        center, total = (np.asarray(part, dtype=np.float32).ravel() for part in (own, whole))
        return center, total - center

    def pull_back(self, neighbors: Positions, gradients: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once."""
        total = gradients.new_zeros(len(gradients), self._network.widths[0])
        with torch.inference_mode():
            inputs = self.centers(neighbors).pooled
        for start in range(0, len(inputs), _BLOCK):
            block = slice(start, start + _BLOCK)
            pooled = inputs[block].clone().requires_grad_()
            z = self._network.embed(pooled)
            for row, gradient in zip(total, gradients[:, block], strict=True):
                row += torch.autograd.grad(z, pooled, gradient, retain_graph=True)[0].sum(dim=0)
        return total
