"""Batches of the published network: patches of several tiles, with their neighborhoods."""

from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import numpy as np
import torch
from torch import Tensor

from sagefm.nn import Masks, Network, Published, SparseRows, draw_masks
from sagefm.pretrain.batches import Chosen, Spots, Task
from sagefm.pretrain.plan import BatchPlan
from sagefm.pretrain.recipe import TrainTable


class PublishedBatch(NamedTuple):
    """Some centers, the means over their neighborhoods, and their masked genes."""

    rows: SparseRows
    """Log1p counts, patch after patch: the spots of its neighborhoods, then the masked genes of
    each of its centers."""
    operators: tuple[Tensor, ...]
    """For each patch centers × rows: the mean over the neighborhood without masked genes."""
    truth: Tensor
    """Centers × genes in the order of the masks, log1p counts."""
    masks: Masks
    n_masked: int
    """Masked entries of the batch, those of other processes included."""
    n_own: int
    """Masked entries of the centers of this process."""
    number: int
    """Place in the epoch."""

    def error(self, network: Network, times: float) -> Tensor:
        """Sum the squared errors of masked entries: `times` their mean over the whole batch."""
        published = cast(Published, network)
        embedding = published.embed(published.mix(self.rows, self.operators))
        return published.error(embedding, self.truth, self.masks, times / self.n_masked)

    def scored(self) -> Tensor:
        """Score all masked entries, as published, also of genes that a slide lacks."""
        return self.masks.in_order()

    def means(self) -> Tensor:
        """Average over the neighborhoods, without masks."""
        dense = self.rows.dense(len(self.masks.order))
        patches = torch.split(dense, [a.shape[1] for a in self.operators])
        means = [
            a[:, : -len(a)] @ x[: -len(a)]  # the last rows are the masked genes of the centers
            for a, x in zip(self.operators, patches, strict=True)
        ]
        return torch.cat(means)[:, self.masks.order]


@dataclass(frozen=True)
class PublishedTask(Task):
    """Predict the masked genes of the centers of some patches."""

    mask_fraction: float
    plan = BatchPlan

    @classmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Make the task, which is the same in training and in validation."""
        return cls(settings.mask_fraction)

    def batch(
        self, tiles: Chosen, part: slice, whole: Spots, number: int, chance: np.random.Generator
    ) -> PublishedBatch:
        """Make a batch."""
        n_genes = tiles[0][0].counts.shape[1]
        masks = draw_masks(sum(map(len, whole)), n_genes, self.mask_fraction, chance)
        return gather(tiles, masks.of(part), masks.n_masked(), number)


def gather(tiles: Chosen, masks: Masks, n_masked: int, number: int = 0) -> PublishedBatch:
    """Make a batch.

    Parameters
    ----------
    tiles
        Tiles that were read, and the spots of each that are centers.
    masks
        The masked genes of these centers, in this order.
    n_masked
        As in :class:`PublishedBatch`.
    """
    order, ends = masks.order.numpy(), masks.ends.numpy()
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    block_of = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[place]
    block_mask = masks.masked.numpy()
    truth = np.zeros((len(block_mask), len(order)), dtype=np.float32)
    rows, operators, at = [], [], 0
    for tile, spots in tiles:
        neighbors = tile.neighbors[spots]
        n_centers, size = neighbors.shape
        members, columns = np.unique(neighbors, return_inverse=True)
        centers = tile.log1p[neighbors[:, 0]]
        owner = np.repeat(np.arange(n_centers), np.diff(centers.indptr))
        truth[at + owner, place[centers.indices]] = centers.data
        masked = block_mask[at + owner, block_of[centers.indices]]
        around = tile.log1p[members]
        rows.append((np.diff(around.indptr), around.indices, around.data))
        n_each = np.bincount(owner[masked], minlength=n_centers)
        rows.append((n_each, centers.indices[masked], centers.data[masked]))
        operator = np.zeros((n_centers, len(members) + n_centers), dtype=np.float32)
        center = np.arange(n_centers)
        operator[center[:, None], columns.reshape(neighbors.shape)] = 1 / size
        operator[center, len(members) + center] = -1 / size
        operators.append(torch.from_numpy(operator))
        at += n_centers
    lengths, indices, values = map(np.concatenate, zip(*rows, strict=True))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    stacked = SparseRows(
        *map(torch.from_numpy, (ends.astype(np.int32), indices.astype(np.int32), values))
    )
    return PublishedBatch(
        stacked,
        tuple(operators),
        torch.from_numpy(truth),
        masks,
        n_masked,
        masks.n_masked(),
        number,
    )
