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
from sagefm.pretrain.plan import BatchPlan, Patch, Tile, part_of_process
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.source import Source

Chosen = Sequence[tuple[AlignedSlide, NDArray[np.int64]]]
"""Tiles that were read, and the spots of each that are centers."""
Spots = Sequence[NDArray[np.int64]]
"""Centers of each patch of a batch, those of all processes."""


class Batch(Protocol):
    """Some centers with their neighborhoods, and the genes that are masked."""

    @property
    def masks(self) -> Masks:
        """The masked genes of the centers."""

    @property
    def n_masked(self) -> int:
        """Masked entries of the batch, those of other processes included."""

    @property
    def n_own(self) -> int:
        """Masked entries of the centers of this process."""

    @property
    def number(self) -> int:
        """Place in the epoch."""

    @property
    def truth(self) -> Tensor:
        """Centers × genes in the order of the masks, log1p counts."""

    def error(self, network: Network, times: float) -> Tensor:
        """Sum the squared errors of masked entries: `times` their mean over the whole batch."""

    def scored(self) -> Tensor:
        """Tell which entries the loss scores: centers × genes, as :attr:`truth`."""

    def means(self) -> Tensor:
        """Average over the neighborhoods, without masks: as :attr:`truth`."""


class Task(ABC):
    """How the batches of a network are made."""

    plan: ClassVar[type[BatchPlan]]
    """How spots are divided into batches."""

    @classmethod
    @abstractmethod
    def of(cls, settings: TrainTable, *, learning: bool) -> Self:
        """Make the task of training, or that of validation."""

    @abstractmethod
    def batch(
        self, tiles: Chosen, part: slice, whole: Spots, number: int, chance: np.random.Generator
    ) -> Batch:
        """Make a batch.

        Parameters
        ----------
        tiles
            The centers that this process works on.
        part
            Which of the centers of the whole batch these are.
        whole
            The centers of the whole batch.
        number
            Place in the epoch.
        chance
            Source of all draws; it is the same in all processes.
        """


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, from one of them on.

    What is random in them depends on `seed` and the number of the batch alone, whatever the number
    of threads and processes, and wherever a run was interrupted.
    """

    source: Source
    plan: Sequence[Sequence[Patch]]
    seed: tuple[int, ...]
    task: Task
    first: int = 0
    """The batch to begin with."""
    rank: int = 0
    """Which of `world` processes this is; each gets its part of every batch."""
    world: int = 1
    workers: int = 1
    """Threads that read and gather."""

    def __len__(self) -> int:
        return len(self.plan) - self.first

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.first, len(self.plan))
        last_use = {patch.tile: number for number in numbers for patch in self.plan[number]}
        tiles: dict[Tile, Future[AlignedSlide]] = {}
        ahead: deque[Future[Batch]] = deque()
        waiting = iter(numbers)
        with ThreadPoolExecutor(self.workers, "sagefm-batches") as pool:
            try:
                for number in numbers:
                    for coming in islice(waiting, self.workers + 2 - len(ahead)):
                        # A tile is submitted before the batches that wait for it: no deadlock.
                        for tile in {patch.tile for patch in self.plan[coming]}:
                            if tile not in tiles:
                                tiles[tile] = pool.submit(self.source.read, *tile)
                        needed = {patch.tile: tiles[patch.tile] for patch in self.plan[coming]}
                        ahead.append(pool.submit(self._gather, coming, needed))
                    yield ahead.popleft().result()
                    for tile in {patch.tile for patch in self.plan[number]}:
                        if last_use[tile] == number:
                            del tiles[tile]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _gather(self, number: int, tiles: dict[Tile, "Future[AlignedSlide]"]) -> Batch:
        batch = self.plan[number]
        part, patches = part_of_process(batch, self.rank, self.world)
        chance = np.random.default_rng([*self.seed, number])
        # With fewer spots than processes, some process gets a tile without centers.
        patches = patches or [Patch(batch[0].tile, batch[0].spots[:0])]
        chosen = [(tiles[patch.tile].result(), patch.spots) for patch in patches]
        whole = [patch.spots for patch in batch]
        return self.task.batch(chosen, part, whole, number, chance)
