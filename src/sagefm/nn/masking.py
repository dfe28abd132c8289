"""Which genes of a center are hidden while the network learns to predict them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_BLOCKS = range(20, 9, -1)


class Masks(NamedTuple):
    """What some centers hide, in blocks of genes.

    The genes are shuffled and cut into blocks, and each center hides some of the blocks. Seen from
    one center that is a uniform draw among all sets of so many genes, as in the paper; that centers
    of one batch share the blocks lets the loss work on whole blocks (:mod:`sagefm.nn.loss`).
    """

    order: Tensor
    """(genes) every gene once, block after block."""
    ends: Tensor
    """(blocks + 1) where each block begins in `order`, and where the last one ends."""
    hides: Tensor
    """Centers × blocks, boolean."""

    def hidden(self) -> Tensor:
        """Spell the masks out: centers × genes, boolean, columns as in `order`."""
        return torch.repeat_interleave(self.hides, torch.diff(self.ends), dim=1)

    def dense(self) -> Tensor:
        """Spell the masks out: centers × genes, boolean, columns as in the vocabulary."""
        return torch.empty_like(spelled := self.hidden()).index_copy_(1, self.order, spelled)

    def block_of(self) -> Tensor:
        """Give the block of each gene, genes as in the vocabulary."""
        sizes = torch.diff(self.ends)
        blocks = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        return torch.empty_like(blocks).index_copy_(0, self.order, blocks)

    def n_hidden(self) -> int:
        """How many entries are hidden."""
        return int((self.hides.sum(dim=0) * torch.diff(self.ends)).sum())

    def of(self, centers: slice) -> "Masks":
        """Keep the masks of some centers."""
        return self._replace(hides=self.hides[centers])


def draw_masks(n_centers: int, n_genes: int, fraction: float, chance: np.random.Generator) -> Masks:
    """Hide the same number of genes in each center, drawn afresh for each.

    Parameters
    ----------
    fraction
        Share of the genes to hide (0.3 in the paper), met to within 1 in 40.
    chance
        Where the draws come from.
    """
    n_blocks = min(n_genes, min(_BLOCKS, key=lambda n: abs(_part(fraction, n) / n - fraction)))
    n_hidden = _part(fraction, n_blocks)
    draws = chance.random((n_centers, n_blocks))
    hides = draws.argsort(axis=1) < n_hidden
    ends = np.linspace(0, n_genes, n_blocks + 1).round().astype(np.int64)
    return Masks(*map(torch.from_numpy, (chance.permutation(n_genes), ends, hides)))


def _part(fraction: float, n_blocks: int) -> int:
    return max(1, round(fraction * n_blocks))
