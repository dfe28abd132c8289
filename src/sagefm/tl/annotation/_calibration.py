"""How far an annotator can be trusted: what it says of patients that it did not learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sagefm._types import Floats, Positions
from sagefm.tl.annotation._features import SectionFeatures

_BLOCKS = 4
_TEMPERATURES = np.exp(np.linspace(-1.5, 4.0, 56))


@dataclass(frozen=True)
class HeldOut:
    """What was said of labeled spots by those who did not learn from their group.

    Attributes
    ----------
    unit
        What was held out: ``"patient"``, ``"slide"`` or ``"block"`` (a part of the only slide).
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
        """Find the least confidence from which no held-out group had more errors.

        Among the spots of a group that are at least so sure, at most the share `error_rate` was
        wrong, in every group. Infinite where no confidence is enough.
        """
        candidates, enough = np.unique(self.confidence), None
        for group in np.unique(self.groups):
            own = self.groups == group
            order = np.argsort(-self.confidence[own], kind="stable")
            sure = self.confidence[own][order]
            wrong = np.cumsum((self.truth != self.predicted)[own][order])
            n = np.searchsorted(-sure, -candidates, side="right")  # spots that are so sure
            share = np.where(n > 0, wrong[np.maximum(n, 1) - 1], 0) / np.maximum(n, 1)
            kept = share <= error_rate
            enough = kept if enough is None else enough & kept
        if enough is None or not enough.any():
            return float("inf")
        return float(candidates[np.argmax(enough)])


@dataclass(frozen=True)
class Folds:
    """Which spots are held out together."""

    unit: str
    held_out: list[list[NDArray[np.bool_]]]
    """For each fold and slide, which spots."""
    names: list[NDArray[np.str_]]
    """For each slide, the group of each spot."""


def split(
    views: Sequence[SectionFeatures], labeled: Sequence[NDArray[np.bool_]], most: int, seed: int
) -> Folds:
    """Hold out patients; where there is one only, slides; where there is one only, blocks of it.

    More patients (or slides) than `most` are held out several together.
    """
    patients = [view.patient for view in views]
    if len(set(patients)) > 1:
        unit, names = "patient", [np.full(len(v.rows), v.patient) for v in views]
    elif len(views) > 1:
        unit, names = "slide", [np.full(len(v.rows), v.name) for v in views]
    else:
        unit, names = "block", [_blocks(views[0], labeled[0], seed)]
    groups = list(dict.fromkeys(np.concatenate(names).tolist()))
    fold_of = {group: i % most for i, group in enumerate(groups)}
    folds = [np.array([fold_of[name] for name in own.tolist()]) for own in names]
    n_folds = min(len(groups), most)
    return Folds(unit, [[own == i for own in folds] for i in range(n_folds)], names)


def _blocks(view: SectionFeatures, labeled: NDArray[np.bool_], seed: int) -> NDArray[np.str_]:
    """Cut a slide into four parts that lie together: single spots would know their neighbors."""
    from sklearn.cluster import KMeans

    means = KMeans(_BLOCKS, n_init=4, random_state=seed).fit(view.points[labeled])
    return np.array([f"block {i + 1}" for i in means.predict(view.points)])


def probabilities(scores: Floats, temperature: float, around: object | None = None) -> Floats:
    """Turn scores into probabilities, averaged over neighbors if an operator is given."""
    found = softmax(scores / temperature, axis=1)
    return found if around is None else np.asarray(around @ found)  # type: ignore[operator]


def temperature_of(
    views: Sequence[SectionFeatures],
    scores: Sequence[Floats],
    codes: Sequence[Positions],
    groups: Sequence[NDArray[np.str_]],
    smooth: bool,
) -> tuple[float, float]:
    """Find the temperature with the least Brier score, every held-out group counting alike.

    The logarithmic score of Guo et al. (2017, arXiv 1706.04599) is ruled by the few spots of a
    patient where a head is sure and wrong; the Brier score bounds what each can cost.

    Returns
    -------
    The temperature, and that score.
    """
    losses = []
    for temperature in _TEMPERATURES:
        by_group: dict[str, list[Floats]] = {}
        for view, score, own, names in zip(views, scores, codes, groups, strict=True):
            p = probabilities(score, temperature, view.around if smooth else None)
            known = own >= 0
            right = np.eye(score.shape[1])[own[known]]
            brier = ((p[known] - right) ** 2).sum(axis=1)
            for name in np.unique(names[known]):
                by_group.setdefault(name, []).append(brier[names[known] == name])
        losses.append(np.mean([np.concatenate(b).mean() for b in by_group.values()]))
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), float(losses[best])
