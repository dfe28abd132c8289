"""What the context network computes of all spots of a slide, whatever part of it is in memory."""

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sagefm._types import Bools, Positions
from sagefm.nn.context.background import Background

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagefm._types import Floats
    from sagefm.nn.context.network import Context

FOLDS, FOLDS_OF_NEIGHBORHOODS = 4, 32
"""Folds of the spots of a slide where genes are masked in centers, or in whole neighborhoods."""


class SlideBackground(NamedTuple):
    """The background of some spots of a slide."""

    background: Background
    projected: Tensor
    """Sizes × width: the background times the first-layer weights."""


class WholeSlide:
    """Backgrounds and landmarks of a slide of one section.

    Parameters
    ----------
    network
        The network that compares spots with them.
    library_size
        (spots) counts of each over the vocabulary.
    total
        (genes) counts over all spots.
    neighbors, rank
        As in :class:`~sagefm.pp.aligned.AlignedSlide`.
    totals
        Sums counts over sets of spots: sets × spots → sets × genes.
    one_by_one
        Whether that takes as long for several sets as it takes for them one after the other.
    profile
        (genes) fractions of counts that all spots are compared with; those of the slide itself if
        not given.
    """

    def __init__(
        self,
        network: "Context",
        library_size: ArrayLike,
        total: ArrayLike,
        neighbors: Positions,
        rank: Positions,
        totals: "Callable[[Bools], Floats]",
        profile: Tensor | None = None,
        *,
        one_by_one: bool = True,
    ) -> None:
        self._one_by_one = one_by_one
        self._network, self.device, self._profile = network, network.device, profile
        self.library_size, self.total = self._tensor(library_size), self._tensor(total)
        self._neighbors, self._rank, self._totals = neighbors, rank, totals
        self._of_fold: dict[tuple[int, bool], SlideBackground] = {}

    def __len__(self) -> int:
        """Count the spots."""
        return len(self.library_size)

    def _tensor(self, values: ArrayLike) -> Tensor:
        flat = np.asarray(values, dtype=np.float32).ravel()
        return torch.from_numpy(flat).to(self.device)

    @cached_property
    def size(self) -> Tensor:
        """Counts of all spots together."""
        return self.library_size.double().sum()

    @cached_property
    def expected(self) -> SlideBackground:
        """The background of all spots."""
        reference = self.total if self._profile is None else self._profile
        return self._expected(reference, self.library_size)

    def _expected(self, total: Tensor, library_size: Tensor) -> SlideBackground:
        background = Background.of(total, library_size)
        return SlideBackground(background, background.expected @ self._network.first)

    def residuals(self, projected: Tensor, library_size: Tensor) -> Tensor:
        """Subtract the background from projected spots: spots × width."""
        background, expected = self.expected
        return projected - background.weights(library_size) @ expected

    @staticmethod
    def folds(rank: Positions, *, neighbors_masked: bool) -> Positions:
        """Divide spots into folds by place: the number of the fold of each."""
        return rank % (FOLDS_OF_NEIGHBORHOODS if neighbors_masked else FOLDS)

    def expected_of(self, fold: int, *, neighbors_masked: bool) -> SlideBackground:
        """Compute the background of the spots of which no center of a fold masks anything.

        These are the spots of the other folds; where neighbors are masked too, those that are no
        neighbor of a spot of the fold. So no masked count reaches a prediction.
        """
        if (fold, neighbors_masked) not in self._of_fold:
            n_folds = FOLDS_OF_NEIGHBORHOODS if neighbors_masked else FOLDS
            numbers = [fold] if self._one_by_one else list(range(n_folds))
            left = np.stack([self._left(number, neighbors_masked) for number in numbers])
            for number, own, total in zip(numbers, left, self._totals(left), strict=True):
                size = self.library_size[torch.from_numpy(own).to(self.device)]
                background = self._expected(self._tensor(total), size)
                self._of_fold[number, neighbors_masked] = background
        return self._of_fold[fold, neighbors_masked]

    def _left(self, fold: int, neighbors_masked: bool) -> Bools:
        folds = self.folds(self._rank, neighbors_masked=neighbors_masked)
        touched = np.flatnonzero(folds == fold)
        left = np.ones(len(self), dtype=bool)
        left[self._neighbors[touched] if neighbors_masked else touched] = False
        return left

    @cached_property
    def landmarks(self) -> Positions:
        """The spots that every center is compared with, in ascending order: all of a small slide.

        Of a large one they are evenly spaced by place, which depends neither on the order of the
        spots nor on any count.
        """
        n_spots, most = len(self), self._network.MOST
        chosen = np.linspace(0, n_spots - 1, min(most, n_spots)).round().astype(np.int64)
        return np.sort(np.argsort(self._rank, kind="stable")[chosen])
