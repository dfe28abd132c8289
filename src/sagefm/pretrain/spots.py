"""Slides in memory, as batches of neighborhoods."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sagefm.model import Prepared
from sagefm.pp.neighborhood import average


class Batch(NamedTuple):
    """Some centers and what their neighborhoods look like on average."""

    mean: Tensor
    """Centers × genes, mean log1p counts over the neighborhood, center included."""
    centers: Tensor
    """Centers × genes, log1p counts."""


@dataclass(frozen=True)
class Spots(Dataset[Any]):
    """The spots of many prepared slides, one after the other."""

    expression: csr_matrix
    """Spots × genes, log1p counts."""
    operator: csr_matrix
    """Spots × spots, the mean over a neighborhood."""

    @classmethod
    def of(cls, slides: Sequence[Prepared]) -> Self:
        """Stack prepared slides."""
        sizes = [slide.expression.shape[0] for slide in slides]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        neighbors = [slide.neighbors + start for slide, start in zip(slides, starts, strict=True)]
        stacked = vstack([slide.expression for slide in slides], format="csr", dtype=np.float32)
        return cls(csr_matrix(stacked), average(np.concatenate(neighbors)))

    def __len__(self) -> int:
        return int(self.expression.shape[0])

    def __getitem__(self, spot: int) -> int:
        return spot  # a batch is gathered at once, by `gather`

    def gather(self, centers: Sequence[int]) -> Batch:
        """Make the batch of some centers."""
        rows = np.asarray(centers)
        return Batch(
            torch.from_numpy((self.operator[rows] @ self.expression).toarray()),
            torch.from_numpy(self.expression[rows].toarray()),
        )

    def batches(self, sampler: "Shuffled | Sequence[int]", batch_size: int) -> DataLoader[Any]:
        """Give batches of the centers that `sampler` names, in its order."""
        return DataLoader(
            self,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=self.gather,
        )


class Shuffled(Sampler[int]):
    """Every spot once an epoch, in an order that depends on seed and epoch alone."""

    def __init__(self, spots: NDArray[np.int64], seed: int) -> None:
        self.spots = spots
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.spots)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        return iter(rng.permutation(self.spots).tolist())
