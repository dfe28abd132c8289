"""Score the predictions of annotation, and summarize them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics import classes
from sagefm.evaluate.protocols.probe import PROBES
from sagefm.stats import resampling as statistics

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece")


@dataclass(frozen=True)
class SlidePrediction:
    """Predictions of one method for the labeled spots of one held-out slide."""

    group: str
    method: str
    kind: str
    probe: str
    slide: str
    draw: int
    """Of a method that is random."""
    truth: NDArray[Any]
    predicted: NDArray[Any]
    confidence: NDArray[np.float64]


def scores_of(predictions: Sequence[SlidePrediction], cohort: Cohort) -> pd.DataFrame:
    """Score predictions: a row per slide, method, probe and draw."""
    rows = []
    for one in predictions:
        right = one.truth == one.predicted
        of_classes = classes.per_class(one.truth, one.predicted)
        rows.append(
            {
                "group": one.group,
                "slide": one.slide,
                "patient": cohort.patient(one.slide),
                "method": one.method,
                "kind": one.kind,
                "probe": one.probe,
                "draw": one.draw,
                "accuracy": classes.accuracy(one.truth, one.predicted),
                "balanced_accuracy": of_classes["recall"].mean(),
                "macro_f1": of_classes["f1"].mean(),
                "ece": classes.calibration_error(right, one.confidence),
                "n_spots": len(right),
                "n_classes": len(of_classes),
            }
        )
    return pd.DataFrame(rows)


def by_class(predictions: Sequence[SlidePrediction]) -> pd.DataFrame:
    """Score the classes of each prediction."""
    parts = []
    for one in predictions:
        part = classes.per_class(one.truth, one.predicted).reset_index()
        who = ("group", "slide", "method", "kind", "probe", "draw")
        part = part.assign(**{name: getattr(one, name) for name in who})
        parts.append(part[[*who, "class", "recall", "f1", "n"]])
    return pd.concat(parts, ignore_index=True)


def confusion(predictions: Sequence[SlidePrediction]) -> pd.DataFrame:
    """Count spots by truth and prediction, of the first draw of a random method."""
    keys = ["group", "method", "probe", "truth", "predicted"]
    spots = pd.concat(
        [
            pd.DataFrame(
                {
                    "group": one.group, "method": one.method, "probe": one.probe,
                    "truth": one.truth, "predicted": one.predicted,
                }
            )
            for one in predictions
            if not one.draw
        ]
    )  # fmt: skip
    return spots.groupby(keys, sort=False).size().rename("n").reset_index()


def summaries(
    scores: pd.DataFrame,
    patients: "pd.Series[str]",
    groups: Sequence[str],
    untrained: Mapping[str, str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Summarize the scores: a table per group and probe."""
    tables = {}
    for group in groups:
        for probe in PROBES:
            rows = scores[(scores["group"] == group) & (scores["probe"] == probe)]
            kinds = dict(zip(rows["method"], rows["kind"], strict=True))
            table = statistics.summarize(rows, METRICS, patients, seed=seed)
            table.insert(1, "kind", table["method"].map(kinds))
            table["verdict"] = statistics.verdicts(
                table, rows, "balanced_accuracy", kinds, patients, untrained=untrained, seed=seed
            )
            caption = f"Annotation, leave one patient out, {probe} probe, {group}"
            tables[caption] = table.drop(columns=["ece_low", "ece_high"])
    return tables
