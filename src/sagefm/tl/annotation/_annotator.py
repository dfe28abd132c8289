"""The fitted annotator: its classifier, its calibration and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._keys import UNKNOWN
from sagefm._types import Floats
from sagefm.nn import checkpoint
from sagefm.tl.annotation._calibration import HeldOutPredictions, probabilities
from sagefm.tl.annotation._classifier import Method, SpotClassifier
from sagefm.tl.annotation._features import Features, SpotFeatures
from sagefm.tl.annotation._novelty import NoveltyReference

if TYPE_CHECKING:
    from sagefm.model import SageFM


_MAX_NOVELTY = 0.99
"""Spots above it are never labeled where an error rate is given."""
_KIND = "annotator"
_NOVELTY = "novelty."
"""Prefix of the arrays of the reference, in a file."""
_DISTANCES = _NOVELTY + "patient_distances"


@dataclass(frozen=True)
class Settings:
    """Options of :func:`sagefm.tl.learn_annotator`."""

    key: str
    method: Method = "linear"
    features: Features = "combined"
    centered: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Annotator:
    """What :func:`sagefm.tl.learn_annotator` returns and :func:`sagefm.tl.annotate` applies.

    Attributes
    ----------
    classes
        Names of the classes, sorted.
    settings
        How it was trained.
    classifier
        From features to scores.
    temperature
        Scores are divided by it.
    reference
        The training spots, which novelty is measured against.
    held_out
        Predictions for groups that were held out; the confidence is calibrated on them.
    fingerprint
        Of the model.
    facts
        Slides, patients and numbers of spots of the training data, the model and the version.
    """

    classes: tuple[str, ...]
    settings: Settings
    classifier: SpotClassifier
    temperature: float
    reference: NoveltyReference
    held_out: HeldOutPredictions
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, section: SpotFeatures) -> Floats:
        """Compute the calibrated probability of each class: spots × classes."""
        return probabilities(self.classifier.scores(section), self.temperature)

    def labels(
        self, probabilities: Floats, novelty: Floats, error_rate: float | None
    ) -> NDArray[np.object_]:
        """Get the likeliest class, or ``"unknown"`` where that was wrong too often."""
        likeliest = probabilities.argmax(axis=1)
        labels: NDArray[np.object_] = np.array(self.classes, dtype=object)[likeliest]
        if error_rate is not None:
            threshold = self.held_out.threshold(self.held_out.tolerated(error_rate))
            labels[(probabilities.max(axis=1) < threshold) | (novelty > _MAX_NOVELTY)] = UNKNOWN
        return labels

    def score(self) -> pd.DataFrame:
        """Score the predictions for held-out groups, and the most frequent class.

        Returns
        -------
        A row per held-out group: ``n_spots``, ``accuracy``, ``majority`` (accuracy of the most
        frequent class of all other groups), ``balanced_accuracy`` (1 / classes for any constant
        prediction), ``macro_f1`` and ``confidence`` (mean).
        """
        from sklearn.metrics import f1_score, recall_score

        held_out, rows = self.held_out, {}
        for group in dict.fromkeys(held_out.groups.tolist()):
            members = held_out.groups == group
            truth, predicted = held_out.truth[members], held_out.predicted[members]
            others = np.bincount(held_out.truth[~members], minlength=1)
            options = {"labels": np.unique(truth), "average": "macro", "zero_division": 0.0}
            rows[group] = {
                "n_spots": int(members.sum()),
                "accuracy": float((truth == predicted).mean()),
                "majority": float((truth == others.argmax()).mean()),
                "balanced_accuracy": float(recall_score(truth, predicted, **options)),
                "macro_f1": float(f1_score(truth, predicted, **options)),
                "confidence": float(held_out.confidence[members].mean()),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(held_out.unit)

    def save(self, path: str | Path) -> None:
        """Write it to one safetensors file, to be used with the same model.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        held_out = self.held_out
        groups = list(dict.fromkeys(held_out.groups.tolist()))
        arrays = self.classifier.arrays() | {
            "held_out.groups": np.array([groups.index(name) for name in held_out.groups]),
            "held_out.truth": held_out.truth,
            "held_out.predicted": held_out.predicted,
            "held_out.confidence": held_out.confidence,
        }
        arrays |= {_NOVELTY + name: array for name, array in self.reference.arrays().items()}
        header = {
            "kind": _KIND,
            "classes": self.classes,
            "settings": asdict(self.settings),
            "temperature": self.temperature,
            "unit": held_out.unit,
            "groups": groups,
            "fingerprint": self.fingerprint,
            "facts": self.facts,
        }
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        checkpoint.write(path, tensors, header)

    @classmethod
    def load(cls, path: str | Path, model: "SageFM") -> Self:
        """Load what :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is missing, damaged or no annotator, or belongs to another model.
        """
        tensors, header = checkpoint.read(path, _KIND)
        if header.get("fingerprint") != model.fingerprint:
            raise InputError(f"{path}: belongs to another model; use the one it was trained with")
        settings = header.get("settings")
        removed = {
            "fine-tuning": "head.weight" in tensors,
            "smoothing": isinstance(settings, dict) and settings.get("smooth", False),
        }
        for name in (name for name, used in removed.items() if used):
            raise InputError(f"{path}: uses {name}, which was removed; train the annotator again")
        if not any(n.startswith("parts.") for n in tensors) or _DISTANCES not in tensors:
            raise InputError(f"{path}: is of an older version; train the annotator again")
        try:
            return cls._from_file({name: t.numpy() for name, t in tensors.items()}, header)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{path}: is damaged ({error}); train the annotator again") from error

    @classmethod
    def _from_file(cls, arrays: Mapping[str, NDArray[Any]], header: dict[str, Any]) -> Self:
        options = {option.name for option in fields(Settings)}
        settings = Settings(**{k: v for k, v in header["settings"].items() if k in options})
        classes = tuple(header["classes"])
        held_out = HeldOutPredictions(
            header["unit"], np.array(header["groups"])[arrays["held_out.groups"]],
            arrays["held_out.truth"], arrays["held_out.predicted"], arrays["held_out.confidence"],
        )  # fmt: skip
        reference = NoveltyReference.from_arrays(
            {name.removeprefix(_NOVELTY): array for name, array in arrays.items()
             if name.startswith(_NOVELTY)}
        )  # fmt: skip
        classifier = SpotClassifier.from_arrays(arrays, len(classes))
        return cls(
            classes, settings, classifier, float(header["temperature"]), reference, held_out,
            header["fingerprint"], dict(header["facts"]),
        )  # fmt: skip
