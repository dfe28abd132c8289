"""Batches of an epoch, gathered ahead of the network by threads."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sagefm.nn import Masks, Network
from sagefm.pp.aligned import AlignedSlide
from sagefm.pretrain.plan import Patch, Plan, Tile, share_of
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.source import Source

Parts = Sequence[tuple[AlignedSlide, NDArray[np.int64]]]
"""ContextTask, and the spots of each that are centers."""


class Batch(Protocol):
    """Some centers, what is shown of them and around them, and what is hidden."""

    @property
    def masks(self) -> Masks:
        """What the centers hide."""

    @property
    def n_masked(self) -> int:
        """Hidden entries of the batch, also of the centers that other processes work on."""

    @property
    def n_own(self) -> int:
        """Hidden entries of these centers."""

    @property
    def number(self) -> int:
        """Place in the epoch."""

    @property
    def truth(self) -> Tensor:
        """Centers × genes in the order of the masks, log1p counts."""

    def error(self, network: Network, times: float) -> Tensor:
        """Add up the squared errors of what is hidden: `times` the mean over the whole batch."""

    def scored(self) -> Tensor:
        """Say what is hidden and measured: centers × genes, or × 1, as :attr:`truth`."""

    def means(self) -> Tensor:
        """Average over the neighborhoods, nothing hidden: as :attr:`truth`."""


class Task(ABC):
    """What a network is shown and asked in training."""

    plan: ClassVar[type[Plan]]
    """How its batches are made of spots."""

    @classmethod
    @abstractmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Set the task of training, or that of validation."""

    @abstractmethod
    def batch(
        self, parts: Parts, own: slice, n_spots: int, number: int, chance: np.random.Generator
    ) -> Batch:
        """Make a batch.

        Parameters
        ----------
        parts
            The centers that this process works on.
        own
            Which of the `n_spots` centers of the whole batch these are.
        number
            Place in the epoch.
        chance
            Where all draws come from; it is the same in all processes.
        """


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, from one of them on.

    All chance in them depends on `seed` and the number of the batch alone, so that neither threads
    nor processes nor an interruption change it.
    """

    source: Source
    plan: Sequence[Sequence[Patch]]
    seed: tuple[int, ...]
    task: Task
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
        last_use = {patch.tile: number for number in numbers for patch in self.plan[number]}
        regions: dict[Tile, Future[AlignedSlide]] = {}
        ahead: deque[Future[Batch]] = deque()
        waiting = iter(numbers)
        with ThreadPoolExecutor(self.workers, "sagefm-batches") as pool:
            try:
                for number in numbers:
                    for coming in islice(waiting, self.workers + 2 - len(ahead)):
                        # A region is asked for before what waits for it: never a deadlock.
                        for tile in {patch.tile for patch in self.plan[coming]}:
                            if tile not in regions:
                                regions[tile] = pool.submit(self.source.read, *tile)
                        own = {patch.tile: regions[patch.tile] for patch in self.plan[coming]}
                        ahead.append(pool.submit(self._gather, coming, own))
                    yield ahead.popleft().result()
                    for tile in {patch.tile for patch in self.plan[number]}:
                        if last_use[tile] == number:
                            del regions[tile]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _gather(self, number: int, regions: dict[Tile, "Future[AlignedSlide]"]) -> Batch:
        batch = self.plan[number]
        n_spots = sum(len(patch.spots) for patch in batch)
        own, patches = share_of(batch, self.rank, self.world)
        chance = np.random.default_rng([*self.seed, number])
        # Of a batch of fewer spots than processes, some process has none: it is shown the region.
        around = patches or [Patch(batch[0].tile, batch[0].spots[:0])]
        parts = [(regions[patch.tile].result(), patch.spots) for patch in around]
        return self.task.batch(parts, own, n_spots, number, chance)
