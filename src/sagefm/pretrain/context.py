"""Batches of the context network: spots of one tile, with all of the tile as their context."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sagefm.nn import Context, Masks, Network, SparseRows, draw_masks
from sagefm.nn.context.loss import tile_error
from sagefm.pretrain.augment import Augmentation
from sagefm.pretrain.batches import Chosen, Spots, Task
from sagefm.pretrain.plan import TileBatchPlan
from sagefm.pretrain.recipe import TrainTable

MISSING = 0.1
"""Weight of the mean error on missing genes; that on masked genes has weight 1."""
_MISSING_FRACTIONS = (0.1, 0.3, 0.7)
_LEAST_BLOCKS = 3
"""Blocks of genes that are never missing."""


class ContextBatch(NamedTuple):
    """Some centers of a tile, and the tile."""

    rows: SparseRows
    """Log1p counts of all spots of the tile, without masks."""
    counts: SparseRows
    """Their counts."""
    neighbors: Tensor
    """Centers × 15 row numbers, the center first."""
    measured: Tensor
    """Genes: whether the slide measured them; others are never scored."""
    masks: Masks
    missing: Tensor
    """(blocks of the masks) missing from all spots, as if the slide had not measured them."""
    n_masked: int
    """Masked entries of the batch that are measured and not missing, those of other processes
    included."""
    n_missing: int
    """Missing entries of the same centers that are measured."""
    n_own: int
    """Masked entries of the centers of this process, counted likewise."""
    others: Tensor
    """(spots of the tile) boolean: not a center of the batch, nor of what other processes do."""
    number: int
    """Place in the epoch."""

    def error(self, network: Network, times: float) -> Tensor:
        """Sum the squared errors of masked entries and, at a tenth, of missing ones."""
        weights = times / max(1, self.n_masked), MISSING * times / max(1, self.n_missing)
        context = cast(Context, network)
        tile = self.rows, self.counts, self.neighbors, self.measured, self.masks, self.missing
        # Processes that train together wait for a gradient of every weight, also of weights that
        # are not used where nothing is missing.
        return tile_error(context, *tile, weights, self.others) + 0 * context.missing.sum()

    @property
    def truth(self) -> Tensor:
        """Centers × genes in the order of the masks, log1p counts."""
        return self._dense()[self.neighbors[:, 0]]

    def scored(self) -> Tensor:
        """Score the masked entries that are measured."""
        return self.masks.in_order() & self.measured[self.masks.order]

    def means(self) -> Tensor:
        """Average over the neighborhoods, without masks."""
        return F.embedding_bag(self.neighbors, self._dense(), mode="mean")

    def _dense(self) -> Tensor:
        return self.rows.dense(len(self.measured))[:, self.masks.order]


@dataclass(frozen=True)
class ContextTask(Task):
    """Predict the masked genes of centers of a tile, and genes that are missing from all of it.

    Parameters
    ----------
    missing_fraction
        Fraction of the batches in which 10, 30 or 70 % of the blocks of genes are missing.
    """

    mask_fraction: float
    missing_fraction: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    plan = TileBatchPlan

    @classmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Make the task; in validation no genes are missing but those that a slide lacks."""
        if not learning:
            return cls(settings.mask_fraction)
        changes = Augmentation(settings.thin_fraction, settings.panel_fraction)
        return cls(settings.mask_fraction, settings.missing_fraction, changes)

    def batch(
        self, tiles: Chosen, part: slice, whole: Spots, number: int, chance: np.random.Generator
    ) -> ContextBatch:
        """Make a batch."""
        [(tile, _)], [spots] = tiles, whole
        masks = draw_masks(len(spots), len(tile.measured), self.mask_fraction, chance)
        missing = torch.from_numpy(self._missing(len(masks.ends) - 1, chance))
        masks = masks._replace(masked=masks.masked & ~missing)  # missing genes are not masked
        # A source may return more rows than a tile needs: keep its spots and their neighbors.
        members = np.unique(tile.neighbors)
        counts, measured = self.augmentation(tile.counts[members], tile.measured, chance)
        neighbors = np.searchsorted(members, tile.neighbors[spots])
        others = np.ones(len(members), dtype=bool)
        others[neighbors[:, 0]] = len(spots) == len(members)  # else nothing is left of a tiny tile
        own = masks.of(part)
        sizes = np.add.reduceat(measured[masks.order.numpy()], masks.ends[:-1].numpy())
        measured_of_block = torch.from_numpy(sizes.astype(np.int64))
        return ContextBatch(
            rows=SparseRows.from_scipy(counts.log1p()),
            counts=SparseRows.from_scipy(counts),
            neighbors=torch.from_numpy(neighbors[part]),
            measured=torch.from_numpy(measured),
            masks=own,
            missing=missing,
            n_masked=int((masks.masked * measured_of_block).sum()),
            n_missing=len(spots) * int(measured_of_block[missing].sum()),
            n_own=int((own.masked * measured_of_block).sum()),
            others=torch.from_numpy(others),
            number=number,
        )

    def _missing(self, n_blocks: int, chance: np.random.Generator) -> NDArray[np.bool_]:
        """Draw the blocks of genes that are missing from all of a tile."""
        missing = np.zeros(n_blocks, dtype=bool)
        if chance.random() < self.missing_fraction:
            n = round(float(chance.choice(_MISSING_FRACTIONS)) * n_blocks)
            missing[chance.permutation(n_blocks)[: max(0, min(n, n_blocks - _LEAST_BLOCKS))]] = True
        return missing
