"""Adapt the network to slides: a few more steps of training, on their own spots.

The objective is that of training (:mod:`~sagefm.nn.context.loss`). Some spots are held out: the
weights that predict their masked genes best are kept, those of the beginning included.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._progress import counted
from sagefm._types import Positions
from sagefm.nn.context.loss import tile_error
from sagefm.nn.context.network import Context
from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.sparse import SparseRows, columns_of

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

_LEARNING_RATE = 4e-4
_AVERAGE = 0.9
"""What the weights that are kept hold of their last value after a step: they are an average over
steps, which leaves out the noise of steps as long as these."""
_CENTERS = 128
"""Centers of a step."""
_REGION = 700
"""Spots of a large slide that a step sees, about."""
_PATCHES = 8
"""Patches of neighbors of which it consists, since attention compares all of the slide."""
_MASKED = 0.3
"""Fraction of the genes that are masked, as in training."""
_HELD_OUT = 0.15
"""Fraction of the centers that are never targets."""
_EVERY = 10
"""Steps between evaluations of the centers that are held out."""
_TESTS = 4
"""Regions of a large slide in which held-out centers are evaluated."""

_OF_GENES = ("first", "decoder", "missing", "usual")
"""Weights with a row per gene."""
_UNCHANGED = ("missing", "usual")
"""Weights that no step changes, since nothing is missing."""


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
    genes = np.flatnonzero(np.any([slide.measured for slide in slides], axis=0))
    parts = [_Part.of(slide, genes, own, rng) for slide, own in zip(slides, centers, strict=True)]
    fractions = np.array([len(part.targets) for part in parts], dtype=np.float64)
    tests = [part.test(rng) for part in parts for _ in range(1 if part.is_small else _TESTS)]
    with torch.inference_mode(False), torch.enable_grad():
        some = _with_genes(network, torch.from_numpy(genes))
        optimizer = torch.optim.Adam(some.parameters(), lr=_LEARNING_RATE, fused=True)
        mean = _with_genes(network, torch.from_numpy(genes))
        kept = _Kept.of(mean, _error(mean, tests), 0)
        before = kept.error
        for step in counted(range(1, n_steps + 1), "adapting to the slide, step"):
            part = parts[rng.choice(len(parts), p=fractions / fractions.sum())]
            optimizer.zero_grad()
            part.batch(part.targets, rng).error(some).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                for average, value in zip(mean.parameters(), some.parameters(), strict=True):
                    average.lerp_(value, 1 - _AVERAGE)
            if step % _EVERY == 0 or step == n_steps:
                error = _error(mean, tests)
                if error < kept.error:
                    kept = _Kept.of(mean, error, step)
        whole = _with_weights(network, torch.from_numpy(genes), kept.weights)
    return Adapted(whole, kept.n_steps, kept.error, before)


def _with_genes(network: Context, genes: Tensor) -> Context:
    """Copy a network with some of its genes: what the others weigh, no step can change."""
    genes = genes.to(network.device)
    weights = {
        name: values[genes] if name in _OF_GENES else values.clone()
        for name, values in network.state_dict().items()
        if not name.startswith("absent.")  # which no step changes
    }
    return _filled(network, len(genes), weights).train()


def _with_weights(network: Context, genes: Tensor, weights: dict[str, Tensor]) -> Context:
    """Put weights of some genes into a copy of a network, which shares what did not change."""
    whole, genes = network.state_dict(), genes.to(network.device)
    changed = {
        name: whole[name].index_copy(0, genes, values) if name in _OF_GENES else values
        for name, values in weights.items()
        if name not in _UNCHANGED
    }
    return _filled(network, len(network.first), whole | changed).eval()


def _filled(network: Context, n_genes: int, weights: dict[str, Tensor]) -> Context:
    with torch.device("meta"):
        made = type(network)(n_genes, network.widths)
        made.make_room(weights)
    made.load_state_dict(weights, assign=True)
    return made


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

    def error(self, network: Context) -> Tensor:
        """Compute the mean squared error of the masked genes."""
        n_scored = int((self.masks.in_order() & self.measured[self.masks.order]).sum())
        tile = _Batch(*(_to(part, network.device) for part in self))
        nothing = torch.zeros_like(tile.masks.masked[0])
        weights = 1 / max(1, n_scored), 0.0
        return tile_error(
            network, tile.log1p, tile.counts, tile.neighbors, tile.measured, tile.masks, nothing,
            weights, tile.others,
        )  # fmt: skip


def _to(part: Any, device: torch.device) -> Any:
    if isinstance(part, Tensor):
        return part.to(device)
    return type(part)(*(each.to(device) for each in part))


class _Part(NamedTuple):
    """One of the slides."""

    slide: "AlignedSlide"
    genes: Positions
    """Those that any of the slides has measured."""
    targets: Positions
    held_out: Positions

    @classmethod
    def of(
        cls, slide: "AlignedSlide", genes: Positions, centers: Positions, rng: np.random.Generator
    ) -> Self:
        """Hold out some of the centers."""
        shuffled = rng.permutation(centers)
        end = max(1, round(_HELD_OUT * len(shuffled)))
        return cls(slide, genes, shuffled[end:], shuffled[:end])

    @property
    def is_small(self) -> bool:
        """Whether all of the slide is one region."""
        return len(self.slide.neighbors) <= _REGION

    def test(self, rng: np.random.Generator) -> _Batch:
        """Draw centers that are held out."""
        return self.batch(self.held_out, rng)

    def batch(self, targets: Positions, rng: np.random.Generator) -> _Batch:
        """Draw a region, and some of the targets in it with their masks."""
        slide = self.slide
        members, inner = _region(slide.neighbors, targets, rng)
        counts = columns_of(slide.counts if self.is_small else slide.counts[members], self.genes)
        chosen = np.sort(rng.permutation(np.intersect1d(targets, inner))[:_CENTERS])
        neighbors = np.searchsorted(members, slide.neighbors[chosen])
        others = np.ones(len(members), dtype=bool)
        others[neighbors[:, 0]] = len(chosen) == len(members)  # else nothing is left of a tiny one
        log1p = (np.log1p(counts.data), counts.indices, counts.indptr)
        return _Batch(
            log1p=SparseRows.from_scipy(csr_matrix(log1p, shape=counts.shape)),
            counts=SparseRows.from_scipy(counts),
            neighbors=torch.from_numpy(neighbors),
            measured=torch.from_numpy(slide.measured[self.genes]),
            masks=draw_masks(len(chosen), len(self.genes), _MASKED, rng),
            others=torch.from_numpy(others),
        )


@torch.no_grad()
def _error(network: Context, tests: Sequence[_Batch]) -> float:
    """Average the error over the centers that are held out."""
    errors = [float(batch.error(network)) for batch in tests]
    return float(np.average(errors, weights=[len(batch.neighbors) for batch in tests]))


def _region(
    neighbors: Positions, targets: Positions, rng: np.random.Generator
) -> tuple[Positions, Positions]:
    """Draw some hundred spots: patches of neighbors around some of the targets.

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
        own, grown = np.array([start]), np.unique(neighbors[start])
        while len(own) < len(grown):
            inner[own], own, grown = True, grown, np.unique(neighbors[grown])
            if len(grown) > _REGION // _PATCHES:
                break
        members[own] = True
        if np.count_nonzero(members) > _REGION - _REGION // _PATCHES:
            break
    return np.flatnonzero(members), np.flatnonzero(inner)
