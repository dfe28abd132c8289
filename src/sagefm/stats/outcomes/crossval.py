"""Cross-validated predictions of many labelings, and how many pairs of patients are in order.

Five folds by patient, drawn five times. Only patients of the same fold are compared: they are
predicted by the same fit, to other patients. Without any signal they are then in order with
probability one half. Leave-one-out has no such pairs: each patient is predicted by a fit of its
own, from which it is missing, so that predictions tend to the wrong side and the concordance lies
below one half; and it has no more power. Folds are drawn without regard to the outcome, so that
they are as good for a permuted outcome as for the true one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagefm._types import Bools, Codes, Floats, Positions
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.resampling import N_BOOTSTRAPS, interval

N_FOLDS = 5
N_REPEATS = 5
_MAX_PAIRS = 2_000_000

Reduce = Callable[[Bools], Floats]
"""Training patients (a flag for each patient of the table) → components of all patients of the
table: patients × components, or labelings × patients × components if they differ."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of patients that were compared, for the truth."""

    agreement: Floats
    """Outputs × patients × patients: how often in order minus how often not."""
    compared: Floats
    """Outputs × patients × patients: how often compared."""

    @property
    def concordance(self) -> float:
        """How probably two patients are in order, averaged over outputs."""
        ones = np.ones((1, self.agreement.shape[1]))
        return float(self.of_draws(ones)[0])

    def of_draws(self, draws: Floats) -> Floats:
        """Compute the concordance of resampled patients: draws × patients, how often drawn."""
        totals = [
            np.einsum("di,dj,oij->do", draws, draws, pairs, optimize=True)
            for pairs in (self.agreement, self.compared)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(0.5 + 0.5 * np.nanmean(totals[0] / totals[1], axis=1))

    def within(self, groups: Codes) -> "Pairs":
        """Get the pairs of patients of the same group."""
        same = groups[:, None] == groups
        return Pairs(self.agreement * same, self.compared * same)


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold predictions of each labeling."""

    concordance: Floats
    """Of each labeling, the truth first."""
    risks: Floats
    """Labelings × patients × outputs, averaged over the draws of folds."""
    margins: Floats
    """Labelings × patients: the first output minus its median in the training patients."""
    pairs: Pairs


def draw_folds(n_patients: int, seed: int) -> Codes:
    """Draw the fold of each patient: repeats × patients."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(np.arange(n_patients) % N_FOLDS) for _ in range(N_REPEATS)])


def cross_validate(
    target: Target, reduce: Reduce, orders: Codes, seed: int, groups: Codes | None = None
) -> CrossValidation:
    """Predict each patient from fits to the patients of other folds, for each labeling.

    Parameters
    ----------
    target
        The outcome.
    reduce
        Gets components that are fitted to the training patients.
    orders
        Labelings × patients with a known outcome.
    seed
        Of the folds.
    groups
        Of each of these patients: only patients of the same group are compared.
    """
    known = np.flatnonzero(target.known)
    shape = (*orders.shape, len(target.outputs))
    risks, margins = np.zeros(shape), np.zeros(shape[:2])
    counts = _Counts(target, orders, groups)
    for folds in draw_folds(len(known), seed):
        predicted = np.empty(shape)
        for number in np.unique(folds):
            inner = folds != number
            training = np.zeros(len(target.known), dtype=bool)
            training[known[inner]] = True
            features = reduce(training)[..., known, :]
            fits = target.fit(features[..., inner, :], orders[:, inner])
            predicted[:, ~inner] = fits(features[..., ~inner, :])
            middle = np.median(fits(features[..., inner, :])[..., 0], axis=1, keepdims=True)
            margins[:, ~inner] += predicted[:, ~inner, 0] - middle
        counts.add(predicted, *_pairs(folds))
        risks += predicted
    return CrossValidation(
        counts.concordance(), risks / N_REPEATS, margins / N_REPEATS, counts.of_truth()
    )


def _pairs(folds: Codes) -> tuple[Positions, Positions]:
    """List the pairs of patients of the same fold."""
    one, other = np.nonzero(np.triu(folds[:, None] == folds, 1))
    return np.asarray(one, dtype=np.int64), np.asarray(other, dtype=np.int64)


class _Counts:
    """Counts of pairs that are in order, for each labeling and output."""

    def __init__(self, target: Target, orders: Codes, groups: Codes | None) -> None:
        self.target, self.orders, self.groups = target, orders, groups
        self.agreement = np.zeros((len(target.outputs), len(orders)))
        self.compared = np.zeros_like(self.agreement)
        n = orders.shape[1]
        self.pairs = Pairs(*np.zeros((2, len(target.outputs), n, n)))

    def add(self, predicted: Floats, one: Positions, other: Positions) -> None:
        """Compare patients `one` with patients `other`, in each labeling."""
        if self.groups is not None:
            same = self.groups[one] == self.groups[other]
            one, other = one[same], other[same]
        step = max(1, _MAX_PAIRS // max(len(one), 1))
        for start in range(0, len(self.orders), step):
            rows = slice(start, start + step)
            values = self.target.ranked(predicted[rows])
            order = self.orders[rows]
            for output, signs in enumerate(self.target.signs):
                true = signs[order[:, one], order[:, other]]
                in_order = true * np.sign(values[:, one, output] - values[:, other, output])
                self.agreement[output, rows] += in_order.sum(axis=1)
                self.compared[output, rows] += np.abs(true).sum(axis=1)
                if start == 0:
                    np.add.at(self.pairs.agreement[output], (one, other), in_order[0])
                    np.add.at(self.pairs.compared[output], (one, other), np.abs(true[0]))

    def concordance(self) -> Floats:
        with np.errstate(invalid="ignore"):
            fraction = self.agreement / self.compared
        return np.asarray(0.5 + 0.5 * np.nanmean(fraction, axis=0))

    def of_truth(self) -> Pairs:
        return self.pairs


def bootstrap(blocks: Codes, seed: int, n_draws: int = N_BOOTSTRAPS) -> Floats:
    """Draw patients within their blocks: draws × patients, how often each is drawn."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((n_draws, len(blocks)))
    for code in np.unique(blocks):
        rows = np.flatnonzero(blocks == code)
        draws[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), n_draws)
    return draws


def concordance_interval(target: Target, pairs: Pairs, seed: int) -> tuple[float, float]:
    """Compute the 95 % interval of a concordance over patients."""
    low, high = interval(pairs.of_draws(bootstrap(target.blocks, seed)))
    return float(low), float(high)
