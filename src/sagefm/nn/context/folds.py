"""Predict every spot of a slide by weights that were adapted on other spots of it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sagefm.nn.base import EncodedSlide
from sagefm.nn.context.adaptation import adapted
from sagefm.nn.context.encoded import ContextSlide
from sagefm.nn.context.network import Context
from sagefm.nn.context.stack import Moments, Stack, bins_of
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
    stack: Stack


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
    fold_of = section.rank % n_folds
    networks, moments, bins = [], [], []
    for number in range(n_folds):
        own, others = np.flatnonzero(fold_of == number), np.flatnonzero(fold_of != number)
        n_steps = int(np.clip(round(len(others) / _SPOTS_PER_STEP), *_STEPS))
        fitted = adapted(network, [section], [others], n_steps=n_steps, seed=seed)
        networks.append(fitted.network)
        with torch.inference_mode():
            mean = section.counts[others].mean(axis=0, dtype=np.float64)
            bins.append(bins_of(torch.from_numpy(np.asarray(mean).ravel()).to(network.device)))
            encoded = ContextSlide(fitted.network, section)
            rng = np.random.default_rng([seed, number])
            moments.append(Moments.of(encoded, own, bins[-1], rng))
    # Of the moments of all other folds, each by the weights that have not seen it.
    return tuple(
        FoldFit(each, Stack.fit([m for i, m in enumerate(moments) if i != number], bins[number]))
        for number, each in enumerate(networks)
    )


def encode_folds(fit: CrossFit, slide: "AlignedSlide") -> EncodedSlide:
    """Encode a slide, each spot as a center by what was fitted for its fold."""
    numbers, sections = np.unique(slide.sections, return_inverse=True)
    if len(numbers) == 1:
        return _encode(fit[0], slide)
    parts = [slide.subset(np.flatnonzero(sections == i)) for i in range(len(numbers))]
    encoded = [_encode(*pair) for pair in zip(fit, parts, strict=True)]
    return MultiSlide(encoded, sections)


def _encode(folds: tuple[FoldFit, ...], section: "AlignedSlide") -> EncodedSlide:
    encoded = [ContextSlide(fold.network, section, fold.stack) for fold in folds]
    # Every fold knows all spots of the section.
    return MultiSlide(encoded, section.rank % len(folds), np.arange(len(section.rank)))
