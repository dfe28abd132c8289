"""Batches of patches: what the network is shown, gathered ahead of it by threads."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagefm.nn import Masks, SparseRows, draw_masks
from sagefm.pretrain.plan import Patch, Stretch, share_of
from sagefm.pretrain.source import Region, Source


class Batch(NamedTuple):
    """Some centers, what their neighborhoods show, and what they hide."""

    rows: SparseRows
    """Log1p counts, patch after patch: the spots that its neighborhoods have, then what each of its
    centers hides."""
    operators: tuple[Tensor, ...]
    """For each patch centers × rows: the mean over the neighborhood minus what the center hides."""
    truth: Tensor
    """Centers × genes in the order of the masks, log1p counts."""
    masks: Masks
    n_hidden: int
    """Hidden entries of the batch, also of the centers that other processes work on."""
    n_own: int
    """Hidden entries of these centers."""
    number: int
    """Place in the epoch."""


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, from one of them on.

    Masks depend on `seed` and the number of the batch alone, so that neither threads nor processes
    nor an interruption change them.
    """

    source: Source
    plan: Sequence[Sequence[Patch]]
    seed: tuple[int, ...]
    mask_fraction: float
    first: int = 0
    """The batch to begin with."""
    rank: int = 0
    """Which of `world` processes this is; each gets its share of every batch."""
    world: int = 1
    workers: int = 1
    """Threads that read and gather."""

    def __len__(self) -> int:
        return len(self.plan) - self.first

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.first, len(self.plan))
        last_use = {patch.stretch: number for number in numbers for patch in self.plan[number]}
        regions: dict[Stretch, Future[Region]] = {}
        ahead: deque[Future[Batch]] = deque()
        waiting = iter(numbers)
        with ThreadPoolExecutor(self.workers, "sagefm-batches") as pool:
            try:
                for number in numbers:
                    for coming in islice(waiting, self.workers + 2 - len(ahead)):
                        # A region is asked for before what waits for it: never a deadlock.
                        for stretch in {patch.stretch for patch in self.plan[coming]}:
                            if stretch not in regions:
                                regions[stretch] = pool.submit(self.source.read, *stretch)
                        own = {patch.stretch: regions[patch.stretch] for patch in self.plan[coming]}
                        ahead.append(pool.submit(self._gather, coming, own))
                    yield ahead.popleft().result()
                    for stretch in {patch.stretch for patch in self.plan[number]}:
                        if last_use[stretch] == number:
                            del regions[stretch]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _gather(self, number: int, regions: dict[Stretch, "Future[Region]"]) -> Batch:
        batch = self.plan[number]
        n_spots = sum(len(patch.spots) for patch in batch)
        own, patches = share_of(batch, self.rank, self.world)
        chance = np.random.default_rng([*self.seed, number])
        masks = draw_masks(n_spots, len(self.source.vocabulary), self.mask_fraction, chance)
        parts = [(regions[patch.stretch].result(), patch.spots) for patch in patches]
        return gather(parts, masks.of(own), masks.n_hidden(), number)


def gather(
    parts: Sequence[tuple[Region, NDArray[np.int64]]], masks: Masks, n_hidden: int, number: int = 0
) -> Batch:
    """Make a batch.

    Parameters
    ----------
    parts
        Regions, and the spots of each that are centers.
    masks
        What all these centers hide, in this order.
    n_hidden
        As in :class:`Batch`.
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
        centers = region.expression[neighbors[:, 0]]
        owner = np.repeat(np.arange(n_centers), np.diff(centers.indptr))
        truth[at + owner, place[centers.indices]] = centers.data
        hidden = hides[at + owner, block_of[centers.indices]]
        shown = region.expression[members]
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
    return Batch(
        stacked,
        tuple(operators),
        torch.from_numpy(truth),
        masks,
        n_hidden,
        masks.n_hidden(),
        number,
    )
