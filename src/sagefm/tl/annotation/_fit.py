"""Fit an annotator to labeled spots, and calibrate it on groups that are held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sagefm._types import Floats, Positions
from sagefm.tl.annotation._annotator import Annotator, Settings
from sagefm.tl.annotation._calibration import (
    Folds,
    HeldOutPredictions,
    fit_temperature,
    probabilities,
    split,
)
from sagefm.tl.annotation._classifier import SpotClassifier, fit_classifier
from sagefm.tl.annotation._features import SectionFeatures
from sagefm.tl.annotation._novelty import NoveltyReference

if TYPE_CHECKING:
    from sagefm.model import SageFM

_MAX_FOLDS = 10


def fit_annotator(
    sections: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    classes: Sequence[str],
    model: "SageFM",
    settings: Settings,
    centered: bool | None,
    facts: Mapping[str, Any],
) -> Annotator:
    """Fit an annotator, and hold out one group after the other to calibrate it.

    Parameters
    ----------
    sections, codes
        Sections, and the class of each of their spots (-1: not labeled).
    centered
        Whether the mean of its section is subtracted from a spot. None: what has the lower Brier
        score on held-out groups.
    """
    folds = split(sections, [code >= 0 for code in codes], _MAX_FOLDS, settings.seed)
    if settings.features == "combined" or (centered is None and folds.unit == "block"):
        centered = True  # blocks of one section cannot decide
    trials = [
        _try(sections, codes, folds, len(classes), replace(settings, centered=choice))
        for choice in ([True, False] if centered is None else [centered])
    ]
    best = min(trials, key=lambda trial: trial.brier)
    return Annotator(
        tuple(classes), best.settings, _fit(sections, codes, len(classes), best.settings),
        best.temperature, NoveltyReference.fit(sections, settings.seed), best.held_out,
        model.fingerprint, dict(facts),
    )  # fmt: skip


@dataclass(frozen=True)
class _Trial:
    """Settings, and the predictions for every labeled spot when its group is held out."""

    settings: Settings
    temperature: float
    brier: float
    held_out: HeldOutPredictions


def _try(
    sections: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    folds: Folds,
    n_classes: int,
    settings: Settings,
) -> _Trial:
    """Hold out one group after the other."""
    scores: list[Floats] = [np.zeros((len(code), n_classes)) for code in codes]
    for masks in folds.held_out:
        training = [np.where(mask, -1, code) for mask, code in zip(masks, codes, strict=True)]
        classifier = _fit(sections, training, n_classes, settings)
        for section, mask, score in zip(sections, masks, scores, strict=True):
            if mask.any():
                score[mask] = classifier.scores(section)[mask]
    truth = np.concatenate(codes)
    labeled = truth >= 0
    truth, groups = truth[labeled], np.concatenate(folds.groups)[labeled]
    logits = np.concatenate(scores)[labeled]
    temperature, brier = fit_temperature(logits, truth, groups)
    p = probabilities(logits, temperature)
    held_out = HeldOutPredictions(folds.unit, groups, truth, p.argmax(axis=1), p.max(axis=1))
    return _Trial(settings, temperature, brier, held_out)


def _fit(
    sections: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    n_classes: int,
    settings: Settings,
) -> SpotClassifier:
    """Fit the classifier to the sections that have labels."""
    kept = [i for i, code in enumerate(codes) if (code >= 0).any()]
    return fit_classifier(
        [sections[i] for i in kept], [codes[i] for i in kept], n_classes, settings.method,
        settings.features, centered=settings.centered, seed=settings.seed,
    )  # fmt: skip
