"""Score sets of features: what each says of an outcome, beyond chance and beyond each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.crossval import (
    CrossValidation,
    Pairs,
    Reduce,
    cross_validate,
    draw_folds,
)
from sagefm.stats.outcomes.folds import Fold
from sagefm.stats.outcomes.kinds import ClassTarget
from sagefm.stats.outcomes.linear import LinearFits
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.resampling import benjamini_hochberg

N_PERMUTATIONS_OF_SETS = 999
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class FeatureSet:
    """Features of the patients of a table."""

    name: str
    features: list[str]
    values: Floats | None = None
    """Patients × features; or"""
    fit: Callable[[Bools], Floats] | None = None
    """Training patients → patients × features: fitted to these, without labels."""
    scaled: bool = True
    """Whether features are divided by their standard deviation before principal components are
    computed: for features of different units. Without it, the features that vary most count most,
    as is right for an embedding or for expression."""

    def __post_init__(self) -> None:
        if (self.values is None) == (self.fit is None):
            raise ValueError(f"{self.name}: give either values or fit")
        if self.values is not None and self.values.shape[1] != len(self.features):
            raise ValueError(f"{self.name}: one name per feature is needed")

    def at(self, training: Bools) -> Floats:
        """Get patients × features, fitted to the training patients where that is needed."""
        values = self.values if self.fit is None else self.fit(training)
        return np.asarray(values, dtype=np.float64)

    def fold(self, training: Bools, n_components: int) -> Fold:
        """Reduce features to components of the training patients."""
        return Fold.fit(training, self.at(training), n_components, scaled=self.scaled)

    def reducer(self, target: Target) -> Reduce:
        """Get what reduces the features to as many components as the target permits."""
        return lambda training: self.fold(training, target.n_components).features


@dataclass(frozen=True)
class SetFit:
    """Fits to all patients with a known outcome, of the truth and of each permutation."""

    fold: Fold
    linear: LinearFits

    @property
    def weights(self) -> Floats:
        """Labelings × outputs × features, the truth first: per unit of a feature.

        A prediction is the sum of weight × (value minus `center`), and the intercept.
        """
        return np.asarray(self.linear.weights @ self.fold.reduction.axes.T)

    @property
    def center(self) -> Floats:
        """Mean of each feature in the patients that were fitted to."""
        return self.fold.reduction.center

    @property
    def intercepts(self) -> Floats:
        """Labelings × outputs."""
        return self.linear.intercepts


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate_sets`."""

    scores: pd.DataFrame
    """A row per set: set, n_patients, n_events, n_features, n_components, concordance, low, high,
    p, p_adjusted, q."""
    risks: dict[str, pd.DataFrame]
    """Of each set, a row per patient of the table: risk (log odds, log hazard, value), margin
    (risk minus its median in the training patients) and group (low or high by its sign), which are
    missing for more than two classes; held_out, whether the fits that predict the patient were
    made without it (False if its outcome is unknown); and for classes predicted and
    probability_<class>."""
    permuted: dict[str, Floats]
    """Of each set, the concordance of each permutation."""
    margins: dict[str, Floats]
    """Of each set, the out-of-fold margins: labelings × patients with a known outcome."""
    pairs: dict[str, Pairs]
    """Of each set, the pairs of patients that were compared."""
    fits: dict[str, SetFit]
    """Of each set, the fits to all patients with a known outcome."""
    labelings: Codes
    """The truth and its permutations: labelings × patients with a known outcome."""


def evaluate_sets(
    target: Target,
    sets: Sequence[FeatureSet],
    *,
    strata: Codes | None = None,
    n_permutations: int = N_PERMUTATIONS_OF_SETS,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Evaluation:
    """Predict an outcome from each set of features, and score it.

    Components and fit (ridge-penalized logistic, Cox or linear regression on at most 10 principal
    components, and at most 2 for each 10 events) are made without the patients that are predicted.
    Nothing is tuned.

    Parameters
    ----------
    target
        The outcome.
    sets
        Sets of features; each has a row for each patient of the table.
    strata
        Code of each patient of the table, such as its site: outcomes are permuted within equal
        codes.
    n_permutations
        Permutations of the outcome over patients, each with the whole cross-validation.
    seed
        Of folds, permutations and bootstrap.
    progress
        Called with a line before each set.

    Returns
    -------
    An :class:`Evaluation`. In its scores, low and high are the 95 % interval of the concordance by
    bootstrap over patients (within classes, or within those with and without an event), widened as
    permutations vary more than bootstrap draws of them, which do not repeat the fits; p is the
    fraction of permutations with at least the concordance (the truth counts as one of them);
    p_adjusted is for all sets that were tried: the maximum over sets of the concordance, in units
    of its standard deviation over permutations, in the same permutations (step-down, Westfall and
    Young); q is adjusted by Benjamini-Hochberg.

    Raises
    ------
    InputError
        There are too few patients or events, or no set of features.
    """
    target.require_enough()
    if not sets:
        raise InputError(f"{target.name}: there are no features to predict it from")
    if len({one.name for one in sets}) < len(sets):
        raise InputError(f"{target.name}: two sets of features have the same name")
    within = None if strata is None else strata[target.known]
    orders = target.permuted(n_permutations, seed, within)
    folds = draw_folds(target.n_patients, seed)
    rows, risks, fits = [], {}, {}
    results: dict[str, CrossValidation] = {}
    for one in sets:
        if progress:
            progress(f"{target.name}: {one.name}")

        result = cross_validate(target, one.reducer(target), orders, folds)
        fold = one.fold(target.known, target.n_components)
        fit = SetFit(fold, target.fit(fold.features[target.known], orders))
        low, high = result.interval(target, seed)
        results[one.name], fits[one.name] = result, fit
        risks[one.name] = _risks(target, result, fit)
        rows.append(
            {
                "set": one.name, "n_patients": target.n_patients, "n_events": target.n_events,
                "n_features": len(one.features), "n_components": fold.features.shape[1],
                "concordance": result.concordance[0], "low": low, "high": high,
                "p": p_value(result.concordance),
            }
        )  # fmt: skip
    scores = pd.DataFrame(rows)
    scores["p_adjusted"] = adjusted(np.array([one.concordance for one in results.values()]))
    scores["q"] = benjamini_hochberg(scores["p"])
    return Evaluation(
        scores,
        risks,
        {name: one.concordance[1:] for name, one in results.items()},
        {name: one.margins for name, one in results.items()},
        {name: one.pairs for name, one in results.items()},
        fits,
        orders,
    )


def _risks(target: Target, result: CrossValidation, fit: SetFit) -> pd.DataFrame:
    """Tabulate the predictions of all patients; those without an outcome by the fit to all."""
    linear = fit.linear.first()
    predictions = linear(fit.fold.features)[0]
    margins = predictions[:, 0] - np.median(predictions[target.known, 0])
    predictions[target.known] = result.risks[0]
    margins[target.known] = result.margins[0]
    table = pd.DataFrame({"held_out": target.known})
    if predictions.shape[1] == 1:
        table["risk"], table["margin"] = predictions[:, 0], margins
        table["group"] = np.where(margins > 0, "high", "low")
    else:
        table[["risk", "margin", "group"]] = np.nan, np.nan, None
    if isinstance(target, ClassTarget):
        probabilities = target.probabilities(predictions)
        table["predicted"] = np.array(target.classes, dtype=object)[probabilities.argmax(axis=1)]
        for name, column in zip(target.classes, probabilities.T, strict=True):
            table[f"probability_{name}"] = column
    return table


def p_value(statistics: Floats) -> float:
    """Compute p of the first statistic, which is large by an effect, among all of them."""
    return float((statistics >= statistics[0] - _TOLERANCE).mean())


def adjusted(statistics: Floats) -> Floats:
    """Adjust p values for all sets that were tried, by the maximum over sets (step-down).

    Parameters
    ----------
    statistics
        Sets × labelings, the truth first.

    Returns
    -------
    p of each set: the probability that any set without an effect has a statistic like this.
    """
    spread = statistics.std(axis=1, keepdims=True)
    z = (statistics - statistics.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    order = np.argsort(-z[:, 0], kind="stable")
    largest = np.maximum.accumulate(z[order][::-1], axis=0)[::-1]
    p = np.array(
        [p_value(np.append(z[k, 0], row[1:])) for k, row in zip(order, largest, strict=True)]
    )
    found = np.empty(len(p))
    found[order] = np.maximum.accumulate(p)
    return found
