"""Adapt the network to slides: a few more steps of training, on their own spots.

The objective is that of training (:mod:`~sagefm.nn.context.loss`). Some spots are held out: the
weights that predict their masked genes best are kept, those of the beginning included.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._progress import counted
from sagefm._types import Positions
from sagefm.nn.context.loss import tile_error
from sagefm.nn.context.network import Context
from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.sparse import SparseRows

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

LEARNING_RATE = 2e-4
"""At twice of it, steps on small slides fit their noise; all weights need to move."""
_CENTERS = 128
"""Centers of a step."""
_REGION = 700
"""Spots of a large slide that a step sees, about."""
_MASKED = 0.3
"""Fraction of the genes that are masked, as in training."""
_HELD_OUT = 0.15
"""Fraction of the centers that are never targets."""
_EVERY = 10
"""Steps between evaluations of the centers that are held out."""
_TESTS = 3
"""Regions of a large slide in which held-out centers are evaluated."""


class Adapted(NamedTuple):
    """A network that was adapted."""

    network: Context
    n_steps: int
    """The number of steps of its weights: those that were the best."""
    error: float
    """Mean squared error of masked genes of the centers that were held out, log1p counts."""
    error_before: float
    """The same before the first step."""


def adapted(
    network: Context,
    slides: Sequence["AlignedSlide"],
    centers: Sequence[Positions],
    *,
    n_steps: int,
    seed: int,
) -> Adapted:
    """Adapt a copy of the network to slides.

    Parameters
    ----------
    network
        It is not changed.
    slides
        Each of one section, with the neighborhoods of all spots.
    centers
        For each slide the spots whose masked counts may be predicted, and so reach the weights as
        targets. All spots are context.
    n_steps
        Number of steps.
    seed
        Of regions, centers and masks.

    Returns
    -------
    The weights that predict held-out centers best, of those after every tenth step.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(of_slide) for of_slide in centers]
    ends = [max(1, round(_HELD_OUT * len(of_slide))) for of_slide in shuffled]
    tests = [
        _Batch.draw(slide, of_slide[:end], rng)
        for slide, of_slide, end in zip(slides, shuffled, ends, strict=True)
        for _ in range(1 if _is_small(slide) else _TESTS)
    ]
    targets = [of_slide[end:] for of_slide, end in zip(shuffled, ends, strict=True)]
    fractions = np.array([len(of_slide) for of_slide in targets]) / sum(map(len, targets))
    with torch.inference_mode(False), torch.enable_grad():
        copied = copy.deepcopy(network).train()
        optimizer = torch.optim.Adam(copied.parameters(), lr=LEARNING_RATE, fused=True)
        kept = _Kept.of(copied, _error(copied, tests), 0)
        before = kept.error
        for step in counted(range(1, n_steps + 1), "adapting to the slide, step"):
            number = int(rng.choice(len(slides), p=fractions))
            batch = _Batch.draw(slides[number], targets[number], rng)
            optimizer.zero_grad()
            batch.error(copied).backward()
            optimizer.step()
            if step % _EVERY == 0 or step == n_steps:
                error = _error(copied, tests)
                if error < kept.error:
                    kept = _Kept.of(copied, error, step)
        copied.load_state_dict(kept.weights)
        copied.missing = network.missing  # nothing is missing, so that it has not moved
    return Adapted(copied.eval(), kept.n_steps, kept.error, before)


class _Kept(NamedTuple):
    """The best weights so far."""

    weights: dict[str, Tensor]
    error: float
    n_steps: int

    @classmethod
    def of(cls, network: Context, error: float, n_steps: int) -> Self:
        """Copy the weights of a network."""
        weights = {name: values.clone() for name, values in network.state_dict().items()}
        return cls(weights, error, n_steps)


class _Batch(NamedTuple):
    """Some centers of a region of a slide with their masks, and the region."""

    log1p: SparseRows
    counts: SparseRows
    neighbors: Tensor
    """Centers × 15 rows of the region."""
    measured: Tensor
    masks: Masks
    others: Tensor
    """(spots of the region) boolean: not one of the centers."""

    @classmethod
    def draw(cls, slide: "AlignedSlide", targets: Positions, rng: np.random.Generator) -> Self:
        """Draw a region, and some of the targets in it with their masks."""
        members, inner = _region(slide.neighbors, targets, rng)
        counts = slide.counts if _is_small(slide) else slide.counts[members]
        chosen = np.sort(rng.permutation(np.intersect1d(targets, inner))[:_CENTERS])
        neighbors = np.searchsorted(members, slide.neighbors[chosen])
        others = np.ones(len(members), dtype=bool)
        others[neighbors[:, 0]] = len(chosen) == len(members)  # else nothing is left of a tiny one
        log1p = (np.log1p(counts.data), counts.indices, counts.indptr)
        return cls(
            log1p=SparseRows.from_scipy(csr_matrix(log1p, shape=counts.shape)),
            counts=SparseRows.from_scipy(counts),
            neighbors=torch.from_numpy(neighbors),
            measured=torch.from_numpy(slide.measured),
            masks=draw_masks(len(chosen), counts.shape[1], _MASKED, rng),
            others=torch.from_numpy(others),
        )

    def error(self, network: Context) -> Tensor:
        """Compute the mean squared error of the masked genes."""
        device, masks = network.device, self.masks
        scored = masks.in_order() & self.measured[masks.order]
        weights = 1 / max(1, int(scored.sum())), 0.0
        missing = torch.zeros(len(masks.ends) - 1, dtype=torch.bool)
        moved = (
            SparseRows(*(part.to(device) for part in rows)) for rows in (self.log1p, self.counts)
        )
        on_device = Masks(*(part.to(device) for part in masks))
        neighbors, measured, missing, others = (
            part.to(device) for part in (self.neighbors, self.measured, missing, self.others)
        )
        return tile_error(
            network, *moved, neighbors, measured, on_device, missing, weights, others
        )


@torch.no_grad()
def _error(network: Context, tests: Sequence[_Batch]) -> float:
    """Average the error over the centers that are held out."""
    errors = [float(batch.error(network)) for batch in tests]
    return float(np.average(errors, weights=[len(batch.neighbors) for batch in tests]))


def _is_small(slide: "AlignedSlide") -> bool:
    """Whether all of a slide is one region."""
    return slide.counts.shape[0] <= _REGION


def _region(
    neighbors: Positions, targets: Positions, rng: np.random.Generator
) -> tuple[Positions, Positions]:
    """Draw some hundred spots that are neighbors, around one of the targets.

    Returns
    -------
    The spots, and those of them whose neighborhoods lie within.
    """
    n_spots = len(neighbors)
    if n_spots <= _REGION:
        every = np.arange(n_spots)
        return every, every
    members, inner = np.zeros(n_spots, dtype=bool), np.zeros(n_spots, dtype=bool)
    for start in rng.permutation(targets):
        own = np.array([start])
        while len(grown := np.unique(neighbors[own])) > len(own):
            if np.count_nonzero(members) + len(grown) > _REGION and inner.any():
                break
            inner[own], own = True, grown
        members[own] = True
        if np.count_nonzero(members) > _REGION // 2:  # else it fills an island of the tissue
            break
    return np.flatnonzero(members), np.flatnonzero(inner)
