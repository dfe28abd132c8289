"""Calibration on patients that are held out: folds, temperature, and threshold of confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from sagefm._types import Bools, Floats, Positions
from sagefm.tl.annotation._features import SectionFeatures

_N_BLOCKS = 4
_STEPS = 10
"""Rates of a threshold that are tried: tenths of the tolerated one."""
_TEMPERATURES = np.exp(np.linspace(-1.5, 4.0, 56))


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for labeled spots, by annotators that were not trained on their group.

    Attributes
    ----------
    unit
        What is held out: ``"patient"``, ``"slide"`` or ``"block"`` (an area of the only slide).
    groups
        Name of the held-out group of each spot.
    truth, predicted
        Codes of classes.
    confidence
        Calibrated probability of `predicted`.
    """

    unit: str
    groups: NDArray[np.str_]
    truth: Positions
    predicted: Positions
    confidence: Floats

    def threshold(self, error_rate: float) -> float:
        """Find the lowest confidence at which every held-out group keeps the error rate.

        In every group, at most the fraction `error_rate` of the spots with at least this confidence
        is wrong. Infinite if there is no such confidence. It describes these groups: another one
        can have more errors.
        """
        candidates = np.unique(self.confidence)
        tolerated = np.ones(len(candidates), dtype=bool)
        for group in np.unique(self.groups):
            members = self.groups == group
            order = np.argsort(-self.confidence[members], kind="stable")
            descending = self.confidence[members][order]
            n_wrong = np.cumsum((self.truth != self.predicted)[members][order])
            n_labeled = np.searchsorted(-descending, -candidates, side="right")
            n_wrong = np.where(n_labeled > 0, n_wrong[np.maximum(n_labeled, 1) - 1], 0)
            tolerated &= n_wrong / np.maximum(n_labeled, 1) <= error_rate
        return float(candidates[np.argmax(tolerated)]) if tolerated.any() else float("inf")

    def tolerated(self, error_rate: float) -> float:
        """Find the largest rate of the threshold with which no held-out group exceeds `error_rate`.

        The threshold that keeps a rate in P - 1 groups is exceeded by the last one more often than
        one would like. So the rate that the threshold is set to is lowered, in steps of a tenth,
        until each group, with the threshold that all others need, has at most `error_rate` of its
        labels wrong. NaN if that takes a rate with which no group has a label any more: then the
        threshold does not travel. `error_rate` itself with a single group, where nothing is known,
        and where no group has a label from the start.
        """
        if len(np.unique(self.groups)) < 2:
            return error_rate
        for step in range(_STEPS, 0, -1):
            rate = error_rate * step / _STEPS
            table = self.realized(rate)
            if not table["n_labeled"].any() and step < _STEPS:
                break
            if (table["wrong"].dropna() <= error_rate).all():
                return rate
        return float("nan")

    def realized(self, error_rate: float) -> pd.DataFrame:
        """Measure on each group what the threshold of the other groups does to it.

        Returns
        -------
        A row per group: ``n_labeled``, spots that reach the threshold, ``labeled``, their fraction,
        and ``wrong``, the fraction of these with a wrong label (NaN without any). Empty for one
        group.
        """
        rows = {}
        names = list(dict.fromkeys(self.groups.tolist()))
        for name in names if len(names) > 1 else []:
            group = self.groups == name
            labeled = self.confidence[group] >= self._of(~group).threshold(error_rate)
            wrong = (self.truth != self.predicted)[group][labeled]
            rows[name] = {
                "n_labeled": len(wrong), "labeled": float(labeled.mean()),
                "wrong": float(wrong.mean()) if len(wrong) else float("nan"),
            }  # fmt: skip
        table = pd.DataFrame.from_dict(
            rows, orient="index", columns=["n_labeled", "labeled", "wrong"]
        )
        return table.rename_axis(self.unit)

    def _of(self, spots: Bools) -> "HeldOutPredictions":
        return HeldOutPredictions(
            self.unit, self.groups[spots], self.truth[spots], self.predicted[spots],
            self.confidence[spots],
        )  # fmt: skip


@dataclass(frozen=True)
class Folds:
    """Which spots are held out together."""

    unit: str
    held_out: list[list[Bools]]
    """For each fold and section, which spots."""
    groups: list[NDArray[np.str_]]
    """For each section, the group of each spot."""


def split(
    sections: Sequence[SectionFeatures], labeled: Sequence[Bools], max_folds: int, seed: int
) -> Folds:
    """Hold out patients; sections if there is one patient; blocks if there is one section.

    With more groups than `max_folds`, several are held out together.
    """
    if len({section.patient for section in sections}) > 1:
        unit = "patient"
        groups = [np.full(len(section.rows), section.patient) for section in sections]
    elif len(sections) > 1:
        unit = "slide"
        groups = [np.full(len(section.rows), section.name) for section in sections]
    else:
        unit, groups = "block", [_blocks(sections[0], labeled[0], seed)]
    names = list(dict.fromkeys(np.concatenate(groups).tolist()))
    fold_of = {name: i % max_folds for i, name in enumerate(names)}
    folds = [np.array([fold_of[name] for name in group.tolist()]) for group in groups]
    n_folds = min(len(names), max_folds)
    return Folds(unit, [[fold == i for fold in folds] for i in range(n_folds)], groups)


def _blocks(section: SectionFeatures, labeled: Bools, seed: int) -> NDArray[np.str_]:
    """Split a section into four compact blocks: the neighbors of single spots would be known."""
    from sklearn.cluster import KMeans

    means = KMeans(_N_BLOCKS, n_init=4, random_state=seed).fit(section.points[labeled])
    return np.array([f"block {i + 1}" for i in means.predict(section.points)])


def probabilities(scores: Floats, temperature: float) -> Floats:
    """Compute probabilities of classes from scores."""
    return np.asarray(softmax(scores / temperature, axis=1))


def fit_temperature(
    scores: Floats, truth: Positions, groups: NDArray[np.str_]
) -> tuple[float, float]:
    """Find the temperature with the lowest Brier score, averaged over the held-out groups.

    The logarithmic score of Guo et al. (2017, arXiv 1706.04599) is dominated by the few spots of a
    patient where a classifier is certain and wrong; the Brier score bounds what each can cost.

    Returns
    -------
    The temperature, and its Brier score.
    """
    one_hot = np.eye(scores.shape[1])[truth]
    names, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names))
    losses = []
    for temperature in _TEMPERATURES:
        brier = ((probabilities(scores, temperature) - one_hot) ** 2).sum(axis=1)
        losses.append(float((np.bincount(codes, weights=brier) / sizes).mean()))
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]
