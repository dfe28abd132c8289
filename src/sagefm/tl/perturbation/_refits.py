"""Replicate effects by refits: models that were each trained without one patient."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagefm._cache import ResumableCache
from sagefm._errors import InputError
from sagefm._types import Floats, Hold
from sagefm.tl.perturbation._effects import Progress, SlidePerturber, mean, screened_effects
from sagefm.tl.perturbation._plan import Direction
from sagefm.tl.perturbation._significance import significance
from sagefm.tl.perturbation._slides import PerturbedSlide

if TYPE_CHECKING:
    from sagefm.model import SageFM


def require_same_genes(models: "Sequence[SageFM]", model: "SageFM") -> None:
    """Raise an error if a refit has another vocabulary."""
    for number, refit in enumerate(models, start=1):
        if refit.vocabulary != model.vocabulary:
            raise InputError(
                f"models: number {number} has other genes than the model; give refits of the same "
                "recipe and genes"
            )


def refit_effects(
    models: "Sequence[SageFM]",
    slides: Sequence[PerturbedSlide],
    directions: Sequence[Direction],
    n_null_spots: int,
    seed: int,
    hold: Hold,
    cache: ResumableCache,
    progress: Progress,
    label: str = "",
) -> list[dict[str, Floats]]:
    """Compute the effects of every refit, as of the model: direction → raised genes × columns.

    Their arrays are cached under names that start with `label`.
    """
    of_refits = []
    for number, refit in enumerate(models, start=1):

        def named(line: str, number: int = number) -> None:
            progress(f"refit {number} of {len(models)}, {line}")

        ready = [replace(one, encoded=refit.encode(one.prepared)) for one in slides]
        effects = {}
        for direction in directions:
            of_slides = [
                screened_effects(
                    direction,
                    one.draw(n_null_spots, seed),
                    SlidePerturber(one, cache, named, f"{label}{one.name}.refit {number}"),
                    hold,
                )
                for one in ready
            ]
            effects[direction.name] = mean(of_slides)
        of_refits.append(effects)
    return of_refits


def agreement(direction: Direction, effects: Floats, refits: Sequence[Floats]) -> dict[str, Floats]:
    """Compute how far refits agree on each pair.

    Parameters
    ----------
    effects, refits
        Raised genes × columns, mean over model and refits, and of each refit.

    Returns
    -------
    ``agreement``: the fraction of the refits in which z has the sign that it has for the mean.
    ``effect``, the mean over model and refits; ``effect_low`` and ``effect_high``, the smallest and
    the largest of the refits. (A jackknife would multiply the noise of training, in which refits
    differ too, by the number of patients.)
    """
    z = significance(direction, effects)["z"]
    signs = [np.sign(significance(direction, one)["z"]) for one in refits]
    effect = direction.of_pairs(effects)
    of_pairs = np.array([direction.of_pairs(one) for one in refits])
    same = np.mean(np.array(signs) == np.sign(z), axis=0)
    return {
        "effect": effect, "effect_low": of_pairs.min(axis=0), "effect_high": of_pairs.max(axis=0),
        "agreement": same,
    }  # fmt: skip
