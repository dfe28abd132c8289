"""Cross-validated predictions of many labelings, and how many pairs of patients are in order.

Five folds by patient, drawn five times. Only patients of the same fold are compared: they are
predicted by the same fit, to other patients. Without any signal they are then in order with
probability one half. Leave-one-out has no such pairs: each patient is predicted by a fit of its
own, from which it is missing, so that predictions tend to the wrong side and the concordance lies
below one half; and it has no more power. Folds are drawn without regard to the outcome, so that
they are as good for a permuted outcome as for the true one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sagefm._types import Bools, Codes, Floats, Positions
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.resampling import N_BOOTSTRAPS, interval

N_FOLDS = 5
N_REPEATS = 5
_STREAM = 1
"""Folds must not depend on permutations of the same seed, else these are not like the truth."""
_MAX_PAIRS = 2_000_000
_N_NULLS = 20
"""Permutations that the width of bootstrap intervals is compared with."""
_N_NULL_DRAWS = 200
_MAX_NULL_PAIRS = 20_000_000

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
            np.stack([((draws @ of_output) * draws).sum(axis=1) for of_output in pairs])
            for pairs in (self.agreement, self.compared)
        ]
        return _concordance(*totals)

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
    """Of the truth."""
    widening: float
    """How many times more permuted outcomes vary than bootstrap draws of them, which do not repeat
    the fits; at least 1."""

    def interval(self, target: Target, seed: int) -> tuple[float, float]:
        """Compute the 95 % interval of the concordance over patients, with the widening."""
        return concordance_interval(target, self.pairs, seed, self.widening)


def draw_folds(n_patients: int, seed: int) -> Codes:
    """Draw the fold of each patient: repeats × patients."""
    rng = np.random.default_rng((seed, _STREAM))
    return np.stack([rng.permutation(np.arange(n_patients) % N_FOLDS) for _ in range(N_REPEATS)])


def training_sets(target: Target, reduce: Reduce, folds: Codes) -> Iterator[tuple[Bools, Floats]]:
    """Leave out each fold in turn.

    Parameters
    ----------
    target
        The outcome.
    reduce
        Gets components that are fitted to the training patients.
    folds
        Of each patient with a known outcome.

    Yields
    ------
    Of the patients with a known outcome, which ones remain to train on, and the components of all.
    """
    known = np.flatnonzero(target.known)
    for number in np.unique(folds):
        inner = folds != number
        training = np.zeros(len(target.known), dtype=bool)
        training[known[inner]] = True
        yield inner, reduce(training)[..., known, :]


def cross_validate(
    target: Target,
    reduce: Reduce,
    orders: Codes,
    folds: Codes,
    groups: Codes | None = None,
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
    folds
        Draws of folds × patients with a known outcome, as of :func:`draw_folds`.
    groups
        Of each of these patients: only patients of the same group are compared.
    """
    shape = (*orders.shape, len(target.outputs))
    risks, margins = np.zeros(shape), np.zeros(shape[:2])
    counts = _Counts(target, orders, groups)
    for of_draw in folds:
        predicted = np.empty(shape)
        for inner, features in training_sets(target, reduce, of_draw):
            fits = target.fit(features[..., inner, :], orders[:, inner])
            predicted[:, ~inner] = fits(features[..., ~inner, :])
            middle = np.median(fits(features[..., inner, :])[..., 0], axis=1, keepdims=True)
            margins[:, ~inner] += predicted[:, ~inner, 0] - middle
        counts.add(predicted, *_pairs(of_draw))
        risks += predicted
    concordance = _concordance(counts.agreement, counts.compared)
    widening = _widening(target, concordance, orders, counts.pairs)
    risks /= len(folds)
    margins /= len(folds)
    return CrossValidation(concordance, risks, margins, counts.pairs[0], widening)


def _widening(target: Target, concordance: Floats, orders: Codes, pairs: Sequence[Pairs]) -> float:
    """Compare how permutations vary with how bootstrap draws of each of them do."""
    variances = [
        _variance(one.of_draws(bootstrap(target.blocks[order], number, _N_NULL_DRAWS)))
        for number, (order, one) in enumerate(zip(orders[1:], pairs[1:], strict=False))
    ]
    drawn = float(np.mean(variances)) if variances else 0.0
    return float(np.sqrt(max(1.0, _variance(concordance[1:]) / drawn))) if drawn > 0 else 1.0


def _variance(values: Floats) -> float:
    """Compute the variance of finite values; 0 if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.var(finite)) if len(finite) else 0.0


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
        shape = (len(target.outputs), orders.shape[1], orders.shape[1])
        n_nulls = min(_N_NULLS, max(2, int(_MAX_NULL_PAIRS / np.prod(shape))))
        n_kept = min(len(orders), 1 + n_nulls)
        self.pairs = [Pairs(np.zeros(shape), np.zeros(shape)) for _ in range(n_kept)]

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
                for pairs, kept, sign in zip(self.pairs[rows], in_order, true, strict=False):
                    pairs.agreement[output, one, other] += kept  # no pair occurs twice
                    pairs.compared[output, one, other] += np.abs(sign)


def _concordance(agreement: Floats, compared: Floats) -> Floats:
    """Average over outputs (the rows) that have any pair; NaN where none has."""
    present = compared > 0
    fractions = np.divide(agreement, compared, out=np.zeros_like(agreement), where=present)
    n_present = present.sum(axis=0)
    mean = fractions.sum(axis=0) / np.maximum(n_present, 1)
    return np.asarray(np.where(n_present > 0, 0.5 + 0.5 * mean, np.nan))


def bootstrap(blocks: Codes, seed: int, n_draws: int = N_BOOTSTRAPS) -> Floats:
    """Draw patients within their blocks: draws × patients, how often each is drawn."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((n_draws, len(blocks)))
    for code in np.unique(blocks):
        rows = np.flatnonzero(blocks == code)
        draws[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), n_draws)
    return draws


def concordance_interval(
    target: Target, pairs: Pairs, seed: int, widening: float = 1.0
) -> tuple[float, float]:
    """Compute the 95 % interval of a concordance over patients, some times as wide."""
    low, high = interval(pairs.of_draws(bootstrap(target.blocks, seed)))
    middle = pairs.concordance
    ends = middle + widening * (np.array([low, high]) - middle)
    return float(np.maximum(ends[0], 0.0)), float(np.minimum(ends[1], 1.0))
