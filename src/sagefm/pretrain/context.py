"""The task of the context network: batches of one region, all of which is its context."""

from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sagefm.nn import Context, Masks, Network, SparseRows, draw_masks
from sagefm.nn.context.loss import region_error
from sagefm.pretrain.batches import Parts, Task
from sagefm.pretrain.plan import TilePlan
from sagefm.pretrain.recipe import TrainTable

MISSING = 0.1
"""What the mean over missing entries counts beside that over hidden ones."""
_MISSING_SHARES = (0.1, 0.3, 0.7)
_LEAST_BLOCKS = 3
"""Blocks of genes that are never missing."""


class ContextBatch(NamedTuple):
    """Some centers of a region, and the region."""

    rows: SparseRows
    """Log1p counts of all spots of the region, nothing hidden."""
    neighbors: Tensor
    """Centers × 15 row numbers, the center first."""
    measured: Tensor
    """Genes: whether the slide has them; others are never scored."""
    masks: Masks
    missing: Tensor
    """(blocks of the masks) what no spot of the region shows, as if the slide lacked it."""
    n_masked: int
    """Hidden entries of the batch that are measured and not missing, also of the centers that other
    processes work on."""
    n_missing: int
    """Missing entries of the same centers that are measured."""
    n_own: int
    """Hidden entries of these centers, counted likewise."""
    number: int
    """Place in the epoch."""

    def error(self, network: Network, times: float) -> Tensor:
        """Add up the squared errors of what is hidden, and of what is missing for a tenth."""
        shares = times / max(1, self.n_masked), MISSING * times / max(1, self.n_missing)
        context = cast(Context, network)
        parts = self.rows, self.neighbors, self.measured, self.masks, self.missing
        # Processes that train together wait for a gradient of every weight, also of those that are
        # asked for nothing where nothing is missing.
        return region_error(context, *parts, shares) + 0 * context.missing.sum()

    @property
    def truth(self) -> Tensor:
        """Centers × genes in the order of the masks, log1p counts."""
        return self._dense()[self.neighbors[:, 0]]

    def scored(self) -> Tensor:
        """Score what is hidden and measured."""
        return self.masks.hidden() & self.measured[self.masks.order]

    def means(self) -> Tensor:
        """Average over the neighborhoods, nothing hidden."""
        return F.embedding_bag(self.neighbors, self._dense(), mode="mean")

    def _dense(self) -> Tensor:
        return self.rows.dense(len(self.measured))[:, self.masks.order]


@dataclass(frozen=True)
class ContextTask(Task):
    """Predict what each of some centers of a region hides, and what all of the region lacks.

    Parameters
    ----------
    missing_fraction
        Share of the batches in which 10, 30 or 70 % of the blocks of genes are missing.
    """

    mask_fraction: float
    missing_fraction: float = 0.0
    plan = TilePlan

    @classmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Set the task; in validation nothing is missing but what the slides lack."""
        return cls(settings.mask_fraction, settings.missing_fraction if learning else 0.0)

    def batch(
        self, parts: Parts, own: slice, n_spots: int, number: int, chance: np.random.Generator
    ) -> ContextBatch:
        """Make a batch."""
        [(region, spots)] = parts
        # A source may give more of a slide than was asked for: keep the spots and their neighbors.
        members, places = np.unique(region.neighbors, return_inverse=True)
        neighbors = places.reshape(region.neighbors.shape)[spots]
        masks = draw_masks(n_spots, len(region.measured), self.mask_fraction, chance)
        missing = torch.from_numpy(self._missing(len(masks.ends) - 1, chance))
        masks = masks._replace(hides=masks.hides & ~missing)  # what nobody shows hides nothing
        sizes = np.add.reduceat(region.measured[masks.order.numpy()], masks.ends[:-1].numpy())
        measured_of_block = torch.from_numpy(sizes.astype(np.int64))
        shown = masks.of(own)
        return ContextBatch(
            rows=SparseRows.from_scipy(region.log1p[members]),
            neighbors=torch.from_numpy(neighbors),
            measured=torch.from_numpy(region.measured),
            masks=shown,
            missing=missing,
            n_masked=int((masks.hides * measured_of_block).sum()),
            n_missing=n_spots * int(measured_of_block[missing].sum()),
            n_own=int((shown.hides * measured_of_block).sum()),
            number=number,
        )

    def _missing(self, n_blocks: int, chance: np.random.Generator) -> NDArray[np.bool_]:
        """Draw the blocks of genes that no spot of a region shows."""
        missing = np.zeros(n_blocks, dtype=bool)
        if chance.random() < self.missing_fraction:
            n = round(float(chance.choice(_MISSING_SHARES)) * n_blocks)
            missing[chance.permutation(n_blocks)[: max(0, min(n, n_blocks - _LEAST_BLOCKS))]] = True
        return missing
