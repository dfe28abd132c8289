"""Adapt a model to slides: what is kept of it, and what is said about it."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm._progress import stage
from sagefm._text import numbered
from sagefm._types import Bools, Positions
from sagefm.nn import (
    Context,
    CrossFit,
    EncodedSlide,
    Network,
    adapted,
    cross_fit,
    encode_folds,
    sections_of,
)
from sagefm.pp.aligned import AlignedSlide

ADAPTED_TO = "adapted_to"
"""Entry of the provenance of a model that was adapted."""
_SPOTS_PER_STEP = 8
_STEPS = (10, 120)

_fits: "WeakKeyDictionary[AlignedSlide, dict[tuple[Any, ...], CrossFit]]" = WeakKeyDictionary()
"""What was fitted to a slide, as long as the slide is there."""


def encode_cross_fitted(
    network: Network, fingerprint: str, slide: AlignedSlide, seed: int
) -> EncodedSlide:
    """Encode a slide, each spot by weights that were adapted on other spots; fit them once.

    Parameters
    ----------
    network, fingerprint
        Of the model.

    Raises
    ------
    InputError
        The network cannot be adapted, or `slide` has not the neighborhoods of all its spots.
    """
    context = _adaptable(network, [slide])
    kept, key = _fits.setdefault(slide, {}), (fingerprint, str(network.device), seed)
    if key not in kept:
        stage("adapting to %s spots", f"{len(slide.neighbors):,}")
        kept[key] = cross_fit(context, slide, seed)
    return encode_folds(kept[key], slide)


def can_adapt(network: Network, where: str | None = "center") -> bool:
    """Whether to adapt helps; log why not.

    Parameters
    ----------
    where
        Where genes are masked.
    """
    if not isinstance(network, Context):
        logger.info("not adapted to the slide: only the network context can be")
    elif where == "slide":
        logger.info("not adapted to the slide: it does not help for genes that all spots lack")
    else:
        return True
    return False


def by_measured(
    fitted: EncodedSlide | None, encoded: EncodedSlide, measured: Bools
) -> list[tuple[EncodedSlide, Positions]]:
    """Choose what predicts which genes: adapted weights know those that the slide measured.

    Parameters
    ----------
    fitted
        By adapted weights; none if not given.
    encoded
        By those of the model.
    measured
        For each gene to predict whether the slide has it.
    """
    if fitted is None:
        return [(encoded, np.arange(len(measured)))]
    parts = [(fitted, np.flatnonzero(measured)), (encoded, np.flatnonzero(~measured))]
    return [part for part in parts if len(part[1])] or parts[1:]


def adapted_to(
    network: Network, fingerprint: str, slides: Mapping[str, AlignedSlide], seed: int
) -> tuple[Network, dict[str, Any]]:
    """Adapt a network to slides together: the network, and what was done.

    Raises
    ------
    InputError
        As :func:`encode_cross_fitted`, or there is no slide.
    """
    if not slides:
        raise InputError("slides: is empty; give one to adapt to")
    context = _adaptable(network, list(slides.values()))
    sections = [section for slide in slides.values() for section in sections_of(slide)]
    centers = [np.arange(len(section.rank)) for section in sections]
    n_steps = int(np.clip(round(sum(map(len, centers)) / _SPOTS_PER_STEP), *_STEPS))
    stage("adapting to %s spots", f"{sum(map(len, centers)):,}")
    result = adapted(context, sections, centers, n_steps=n_steps, seed=seed)
    return result.network, {
        "slides": {name: _facts(slide) for name, slide in slides.items()},
        "base": fingerprint,
        "steps": result.n_steps,
        "seed": seed,
        "error_before": result.error_before,
        "error": result.error,
        "sagefm": __version__,
    }


def described(provenance: Mapping[str, Any]) -> str:
    """Say in a few words what a model was adapted to; empty if it was not."""
    facts = provenance.get(ADAPTED_TO)
    if not isinstance(facts, Mapping):
        return ""
    slides = facts.get("slides")
    number = numbered(len(slides), "slide") if isinstance(slides, Mapping) else "a slide"
    return f", adapted to {number} in {facts.get('steps', '?')} steps"


def _facts(slide: AlignedSlide) -> dict[str, int]:
    return {
        "spots": len(slide.rank),
        "genes": int(slide.measured.sum()),
        "counts": int(slide.counts.data.sum(dtype=np.float64)),
    }


def _adaptable(network: Network, slides: Sequence[AlignedSlide]) -> Context:
    if not isinstance(network, Context):
        raise InputError(
            "adapt: is for the network context; load the default model, or leave it out"
        )
    if any(len(slide.neighbors) < slide.counts.shape[0] for slide in slides):
        raise InputError("adapt: needs the neighborhoods of all spots; give the whole slide")
    return network
