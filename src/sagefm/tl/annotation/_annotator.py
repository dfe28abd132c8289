"""An annotator: what it learned from labeled spots, how sure it may be, and its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._types import Floats, Positions
from sagefm.tl.annotation import _calibration as calibration
from sagefm.tl.annotation import _file as file
from sagefm.tl.annotation._features import Features, SectionFeatures
from sagefm.tl.annotation._heads import Head, Reader, fit_reader
from sagefm.tl.annotation._novelty import Novelty

if TYPE_CHECKING:
    from sagefm.model import SageFM

LEAST_SPOTS = 10
"""A class with fewer labeled spots is not learned."""
UNKNOWN = "unknown"
_FOLDS = 10
"""Patients are held out in at most this many folds."""
_NOVEL = 0.99
"""Spots more unusual than this share of those that were learned from are never labeled where
errors are to be few."""


@dataclass(frozen=True)
class Settings:
    """How an annotator learns; see :func:`sagefm.tl.learn_annotator`."""

    key: str
    method: Head = "linear"
    features: Features = "expression"
    balanced: bool = True
    centered: bool = True
    smooth: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Annotator:
    """What :func:`sagefm.tl.learn_annotator` gives, and :func:`sagefm.tl.annotate` asks.

    Attributes
    ----------
    classes
        What it tells apart, sorted.
    settings
        How it learned.
    held_out
        What it said of groups that it had not learned from; its confidence is calibrated on them.
    temperature
        What scores are divided by.
    facts
        The slides, patients and spots that it learned from, the model, the version.
    """

    classes: tuple[str, ...]
    settings: Settings
    reader: Reader
    temperature: float
    known: Novelty
    held_out: calibration.HeldOut
    fingerprint: str
    """Of the model."""
    facts: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, view: SectionFeatures) -> Floats:
        """Get the calibrated probability of each class: spots × classes."""
        around = view.around if self.settings.smooth else None
        return calibration.probabilities(self.reader.scores(view), self.temperature, around)

    def novelty(self, view: SectionFeatures) -> Floats:
        """Say how unlike everything learned from each spot is: 0 to 1."""
        return self.known.of(view)

    def labels(
        self, probabilities: Floats, novelty: Floats, error_rate: float | None
    ) -> NDArray[np.object_]:
        """Name the likeliest class, or ``"unknown"`` where that would be wrong too often."""
        names: NDArray[np.object_] = np.array(self.classes, dtype=object)[
            probabilities.argmax(axis=1)
        ]
        if error_rate is not None:
            least = self.held_out.threshold(error_rate)
            names[(probabilities.max(axis=1) < least) | (novelty > _NOVEL)] = UNKNOWN
        return names

    def score(self) -> pd.DataFrame:
        """Say how it did on what was held out, and how the most frequent class would have done.

        Returns
        -------
        A row per held-out group: ``n_spots``, ``accuracy``, ``majority`` (accuracy of the most
        frequent class of all other groups), ``balanced_accuracy`` (1 / classes for any constant
        answer), ``macro_f1`` and ``confidence`` (mean).
        """
        from sklearn.metrics import f1_score, recall_score

        held, rows = self.held_out, {}
        for group in dict.fromkeys(held.groups.tolist()):
            own = held.groups == group
            truth, predicted = held.truth[own], held.predicted[own]
            others = np.bincount(held.truth[~own], minlength=1)
            there = {"labels": np.unique(truth), "average": "macro", "zero_division": 0.0}
            rows[group] = {
                "n_spots": int(own.sum()),
                "accuracy": float((truth == predicted).mean()),
                "majority": float((truth == others.argmax()).mean()),
                "balanced_accuracy": float(recall_score(truth, predicted, **there)),
                "macro_f1": float(f1_score(truth, predicted, **there)),
                "confidence": float(held.confidence[own].mean()),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(held.unit)

    def save(self, path: str | Path) -> None:
        """Write it to one safetensors file, to be used with the same model.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        file.write(path, self)

    @classmethod
    def load(cls, path: str | Path, model: "SageFM") -> Self:
        """Load what :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is missing, damaged or no annotator, or belongs to another model.
        """
        found: Self = file.read(path, model)  # type: ignore[assignment]
        return found


def learn(
    views: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    classes: Sequence[str],
    model: "SageFM",
    settings: Settings,
    centered: bool | None,
    facts: Mapping[str, Any],
) -> Annotator:
    """Learn from labeled spots, then hold out one group after the other to calibrate.

    Parameters
    ----------
    views, codes
        Slides, and the class of each of their spots (-1: not labeled).
    centered
        None: both are tried, and what has the lesser Brier score on the held-out groups is kept.
    """
    folds = calibration.split(views, [own >= 0 for own in codes], _FOLDS, settings.seed)
    trials = [
        _try(views, codes, folds, len(classes), one)
        for one in _candidates(settings, centered, folds.unit)
    ]
    best = min(trials, key=lambda trial: trial.brier)
    return Annotator(
        tuple(classes), best.settings, _fit(views, codes, len(classes), best.settings),
        best.temperature, Novelty.learn(views, settings.seed),
        _held_out(views, codes, folds, best), model.fingerprint, dict(facts),
    )  # fmt: skip


class _Trial(NamedTuple):
    """What was said of every spot by those who did not learn from its group."""

    settings: Settings
    scores: list[Floats]
    temperature: float
    brier: float


def _candidates(settings: Settings, centered: bool | None, unit: str) -> list[Settings]:
    """List the settings to try: blocks of one slide cannot decide about centering."""
    if centered is None and unit == "block":
        centered = True
    return [
        replace(settings, centered=c) for c in ([True, False] if centered is None else [centered])
    ]


def _try(
    views: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    folds: calibration.Folds,
    n_classes: int,
    settings: Settings,
) -> _Trial:
    """Hold out one group after the other."""
    scores = [np.zeros((len(own), n_classes)) for own in codes]
    for held_out in folds.held_out:
        rest = [np.where(out, -1, own) for out, own in zip(held_out, codes, strict=True)]
        reader = _fit(views, rest, n_classes, settings)
        for view, out, own in zip(views, held_out, scores, strict=True):
            if out.any():
                own[out] = reader.scores(view)[out]
    found = calibration.temperature_of(views, scores, codes, folds.names, settings.smooth)
    return _Trial(settings, scores, *found)


def _fit(
    views: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    n_classes: int,
    settings: Settings,
) -> Reader:
    """Fit the classifier on the slides that have labels left."""
    kept = [i for i, own in enumerate(codes) if (own >= 0).any()]
    views, codes = [views[i] for i in kept], [codes[i] for i in kept]
    return fit_reader(
        views, codes, n_classes, settings.method, balanced=settings.balanced,
        centered=settings.centered, seed=settings.seed,
    )  # fmt: skip


def _held_out(
    views: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    folds: calibration.Folds,
    trial: _Trial,
) -> calibration.HeldOut:
    found = []
    for view, score, own, names in zip(views, trial.scores, codes, folds.names, strict=True):
        around = view.around if trial.settings.smooth else None
        p = calibration.probabilities(score, trial.temperature, around)
        known = own >= 0
        found.append((names[known], own[known], p[known].argmax(axis=1), p[known].max(axis=1)))
    groups, truth, predicted, confidence = (
        np.concatenate(part) for part in zip(*found, strict=True)
    )
    return calibration.HeldOut(folds.unit, groups, truth, predicted, confidence)
