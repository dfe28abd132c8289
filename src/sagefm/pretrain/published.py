"""The task of the published network: batches of patches, of which it sees neighborhoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagefm.nn import Masks, Network, Published, SparseRows, draw_masks
from sagefm.pp.aligned import AlignedSlide
from sagefm.pretrain.batches import Parts, Task
from sagefm.pretrain.plan import Plan
from sagefm.pretrain.recipe import TrainTable


class PublishedBatch(NamedTuple):
    """Some centers, what their neighborhoods show, and what they hide."""

    rows: SparseRows
    """Log1p counts, patch after patch: the spots that its neighborhoods have, then what each of its
    centers hides."""
    operators: tuple[Tensor, ...]
    """For each patch centers × rows: the mean over the neighborhood minus what the center hides."""
    truth: Tensor
    """Centers × genes in the order of the masks, log1p counts."""
    masks: Masks
    n_masked: int
    """Hidden entries of the batch, also of the centers that other processes work on."""
    n_own: int
    """Hidden entries of these centers."""
    number: int
    """Place in the epoch."""

    def error(self, network: Network, times: float) -> Tensor:
        """Add up the squared errors of what is hidden: `times` the mean over the whole batch."""
        published = cast(Published, network)
        embedding = published.embed(published.mix(self.rows, self.operators))
        return published.error(embedding, self.truth, self.masks, times / self.n_masked)

    def scored(self) -> Tensor:
        """Score all that is hidden, also what a slide lacks, as published."""
        return self.masks.hidden()

    def means(self) -> Tensor:
        """Average over the neighborhoods, nothing hidden."""
        dense = self.rows.dense(len(self.masks.order))
        parts = torch.split(dense, [a.shape[1] for a in self.operators])
        shown = [
            a[:, : -len(a)] @ x[: -len(a)]  # the last rows are what the centers hide
            for a, x in zip(self.operators, parts, strict=True)
        ]
        return torch.cat(shown)[:, self.masks.order]


@dataclass(frozen=True)
class PublishedTask(Task):
    """Predict what each center of some patches hides."""

    mask_fraction: float
    plan = Plan

    @classmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Set the task, the same in training and in validation."""
        return cls(settings.mask_fraction)

    def batch(
        self, parts: Parts, own: slice, n_spots: int, number: int, chance: np.random.Generator
    ) -> PublishedBatch:
        """Make a batch."""
        n_genes = parts[0][0].counts.shape[1]
        masks = draw_masks(n_spots, n_genes, self.mask_fraction, chance)
        return gather(parts, masks.of(own), masks.n_hidden(), number)


def gather(
    parts: Sequence[tuple[AlignedSlide, NDArray[np.int64]]],
    masks: Masks,
    n_masked: int,
    number: int = 0,
) -> PublishedBatch:
    """Make a batch.

    Parameters
    ----------
    parts
        ContextTask, and the spots of each that are centers.
    masks
        What all these centers hide, in this order.
    n_masked
        As in :class:`PublishedBatch`.
    """
    order, ends = masks.order.numpy(), masks.ends.numpy()
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    block_of = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[place]
    hides = masks.hides.numpy()
    truth = np.zeros((len(hides), len(order)), dtype=np.float32)
    rows, operators, at = [], [], 0
    for region, spots in parts:
        neighbors = region.neighbors[spots]
        n_centers, size = neighbors.shape
        members, columns = np.unique(neighbors, return_inverse=True)
        centers = region.log1p[neighbors[:, 0]]
        owner = np.repeat(np.arange(n_centers), np.diff(centers.indptr))
        truth[at + owner, place[centers.indices]] = centers.data
        hidden = hides[at + owner, block_of[centers.indices]]
        shown = region.log1p[members]
        rows.append((np.diff(shown.indptr), shown.indices, shown.data))
        n_each = np.bincount(owner[hidden], minlength=n_centers)
        rows.append((n_each, centers.indices[hidden], centers.data[hidden]))
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
        masks.n_hidden(),
        number,
    )
