"""Predict every spot of a slide by weights that were adapted on other spots of it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagefm.nn.base import EncodedSlide
from sagefm.nn.context.adaptation import adapted
from sagefm.nn.context.encoded import ContextSlide
from sagefm.nn.context.network import Context
from sagefm.nn.multi_slide import MultiSlide

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

_SMALL = 500
"""Spots below which a slide has four folds: half of them are too few to adapt to."""
_STEPS = (20, 60)
_SPOTS_PER_STEP = 8


class FoldFit(NamedTuple):
    """What predicts the spots of a fold, none of which was a target of its weights."""

    network: Context
    stack: None = None


CrossFit = tuple[tuple[FoldFit, ...], ...]
"""The folds of each section: a spot belongs to that of its rank, modulo their number."""


def cross_fit(network: Context, slide: "AlignedSlide", seed: int) -> CrossFit:
    """Adapt the network to each section of a slide, once for each fold of its spots.

    Parameters
    ----------
    network
        It is not changed.
    slide
        With the neighborhoods of all spots.
    seed
        Of all draws.
    """
    return tuple(_of_section(network, section, seed) for section in sections_of(slide))


def sections_of(slide: "AlignedSlide") -> "list[AlignedSlide]":
    """Split a slide into its sections, with the spots in the order of their ranks."""
    order = np.lexsort((slide.rank, slide.sections))
    starts = np.flatnonzero(np.diff(slide.sections[order])) + 1
    return [slide.subset(rows) for rows in np.split(order, starts)]


def _of_section(network: Context, section: "AlignedSlide", seed: int) -> tuple[FoldFit, ...]:
    n_folds = 4 if len(section.rank) < _SMALL else 2
    folds = []
    for number in range(n_folds):
        others = np.flatnonzero(section.rank % n_folds != number)
        n_steps = int(np.clip(round(len(others) / _SPOTS_PER_STEP), *_STEPS))
        fitted = adapted(network, [section], [others], n_steps=n_steps, seed=seed)
        folds.append(FoldFit(fitted.network))
    return tuple(folds)


def encode_folds(fit: CrossFit, slide: "AlignedSlide") -> EncodedSlide:
    """Encode a slide, each spot as a center by what was fitted for its fold."""
    numbers, sections = np.unique(slide.sections, return_inverse=True)
    if len(numbers) == 1:
        return _encode(fit[0], slide)
    encoded = [_encode(*pair) for pair in zip(fit, map(slide.section, numbers), strict=True)]
    return MultiSlide(encoded, sections)


def _encode(folds: tuple[FoldFit, ...], section: "AlignedSlide") -> EncodedSlide:
    encoded = [ContextSlide(fold.network, section) for fold in folds]
    # Every fold knows all spots of the section.
    return MultiSlide(encoded, section.rank % len(folds), np.arange(len(section.rank)))
