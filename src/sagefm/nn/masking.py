"""Which genes of a center are masked while the network learns to predict them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_BLOCKS = range(20, 9, -1)


class Masks(NamedTuple):
    """The masked genes of some centers, in blocks of genes.

    The genes are shuffled and cut into blocks, and some of the blocks are masked in each center.
    For a single center that is a uniform draw among all sets of so many genes, as in the paper. All
    centers of a batch share the blocks, so that the losses work on whole blocks.
    """

    order: Tensor
    """(genes) every gene once, block after block."""
    ends: Tensor
    """(blocks + 1) where each block begins in `order`, and where the last one ends."""
    masked: Tensor
    """Centers × blocks, boolean."""

    def in_order(self) -> Tensor:
        """Expand to centers × genes, boolean, columns as in `order`."""
        return torch.repeat_interleave(self.masked, torch.diff(self.ends), dim=1)

    def dense(self) -> Tensor:
        """Expand to centers × genes, boolean, columns as in the vocabulary."""
        return torch.empty_like(expanded := self.in_order()).index_copy_(1, self.order, expanded)

    def block_of(self) -> Tensor:
        """Get the block of each gene, genes as in the vocabulary."""
        sizes = torch.diff(self.ends)
        blocks = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        return torch.empty_like(blocks).index_copy_(0, self.order, blocks)

    def n_masked(self) -> int:
        """Count the masked entries."""
        return int((self.masked.sum(dim=0) * torch.diff(self.ends)).sum())

    def of(self, centers: slice) -> "Masks":
        """Keep the masks of some centers."""
        return self._replace(masked=self.masked[centers])


def draw_masks(n_centers: int, n_genes: int, fraction: float, rng: np.random.Generator) -> Masks:
    """Mask the same number of genes in each center, drawn anew for each.

    Parameters
    ----------
    fraction
        Fraction of the genes to mask (0.3 in the paper), met to within 1 in 40.
    rng
        Source of the draws.
    """
    n_blocks = min(n_genes, min(_BLOCKS, key=lambda n: abs(_part(fraction, n) / n - fraction)))
    n_masked = _part(fraction, n_blocks)
    draws = rng.random((n_centers, n_blocks))
    masked = draws.argsort(axis=1) < n_masked
    ends = np.linspace(0, n_genes, n_blocks + 1).round().astype(np.int64)
    return Masks(*map(torch.from_numpy, (rng.permutation(n_genes), ends, masked)))


def _part(fraction: float, n_blocks: int) -> int:
    return max(1, round(fraction * n_blocks))
