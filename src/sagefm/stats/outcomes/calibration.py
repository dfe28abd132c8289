"""Whether out-of-fold predictions have the right size: predicted against observed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import norm

from sagefm._types import Codes, Floats
from sagefm.stats.outcomes.cox import baseline_hazard, fit_cox
from sagefm.stats.outcomes.crossval import draw_folds, training_sets
from sagefm.stats.outcomes.evaluation import FeatureSet
from sagefm.stats.outcomes.groups import kaplan_meier
from sagefm.stats.outcomes.kinds import ClassTarget, NumberTarget, SurvivalTarget
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.probe import fit_linear
from sagefm.stats.resampling import LEVEL

_PATIENTS_PER_BIN = 10
_MAX_BINS = 5
_Z = float(norm.ppf(0.5 + LEVEL / 2))
_CLIP = 1e-6
_WEAK = 1e-6
"""Penalty of a slope that should not be shrunk."""


def calibration(target: Target, one: FeatureSet, *, seed: int = 0) -> pd.DataFrame:
    """Compare predictions, by fits without these patients, with outcomes.

    Patients are sorted by prediction into two to five bins of about 10 or more.

    Parameters
    ----------
    target
        The outcome.
    one
        A set of features.
    seed
        Of the folds: the same as that of :func:`evaluate_sets` gives its predictions.

    Returns
    -------
    A row per bin: set, class, bin, n_patients, predicted (mean), observed, low, high (95 %).

    - Classes: the probability of each class (of two, the second), and the fraction of patients
      that have it (Wilson interval). ``attrs``: ``brier``, the mean squared error of probabilities
      (summed over classes if there are more than two), ``brier_of_frequencies``, that of
      predicting the frequencies of the classes for all patients, and ``slope`` of a logistic
      regression on the log odds for each class.
    - Survival: the probability of no event until the median time of all patients
      (``attrs["time"]``), and the Kaplan-Meier estimate of it; ``slope`` of a Cox regression on the
      log hazard.
    - Numbers and levels: mean values; ``slope`` of a linear regression.

    A slope of 1 is right; below 1, predictions are too extreme; at 0 they say nothing.
    """
    target.require_enough()
    if isinstance(target, SurvivalTarget):
        return _of_survival(target, one, seed)
    predictions = np.zeros((target.n_patients, len(target.outputs)))
    truth = np.arange(target.n_patients)[None]
    draws = draw_folds(target.n_patients, seed)
    for folds in draws:
        for inner, features in training_sets(target, one.reducer(target), folds):
            fits = target.fit(features[inner], truth[:, inner])
            predictions[~inner] += fits(features[~inner])[0] / len(draws)
    if isinstance(target, ClassTarget):
        return _of_classes(target, one, predictions)
    assert isinstance(target, NumberTarget)
    predicted = predictions[:, 0]
    rows = []
    for number, members in enumerate(_bins(predicted)):
        values = target.values[members]
        mean, width = values.mean(), _Z * values.std(ddof=1) / np.sqrt(len(values))
        facts = (len(values), predicted[members].mean(), mean, mean - width, mean + width)
        rows.append((one.name, "", number, *facts))
    table = _table(rows)
    residuals = predicted - predicted.mean()
    slope = residuals @ target.values / max(residuals @ residuals, _CLIP)
    table.attrs["slope"] = {"": float(slope)}
    return table


def _of_classes(target: ClassTarget, one: FeatureSet, predictions: Floats) -> pd.DataFrame:
    """Compare probabilities with frequencies."""
    probabilities = target.probabilities(predictions)
    member = np.eye(len(target.classes))[target.codes]
    codes = range(len(target.classes))[-len(target.outputs) :]
    rows, slopes = [], {}
    for code in codes:
        p, truth, name = probabilities[:, code], member[:, code], target.classes[code]
        for number, members in enumerate(_bins(p)):
            n, observed = len(members), float(truth[members].mean())
            facts = (n, p[members].mean(), observed, *_wilson(observed, n))
            rows.append((one.name, name, number, *facts))
        log_odds = logit(np.clip(p, _CLIP, 1 - _CLIP))[:, None]
        weights, _ = fit_linear(log_odds, truth.astype(np.int64), C=1 / _WEAK).layers[0]
        slopes[name] = float(weights[0, 1])
    table = _table(rows)
    errors = ((probabilities - member) ** 2).mean(axis=0)
    frequencies = member.mean(axis=0)
    table.attrs |= {
        "brier": float(errors[codes].sum()),
        "brier_of_frequencies": float((frequencies * (1 - frequencies))[codes].sum()),
        "slope": slopes,
    }
    return table


def _of_survival(target: SurvivalTarget, one: FeatureSet, seed: int) -> pd.DataFrame:
    """Compare the predicted survival at the median time with Kaplan-Meier estimates."""
    time = float(np.median(target.times))
    risks, survival = np.zeros((2, target.n_patients))
    truth = np.arange(target.n_patients)[None]
    draws = draw_folds(target.n_patients, seed)
    for folds in draws:
        for inner, features in training_sets(target, one.reducer(target), folds):
            fits = target.fit(features[inner], truth[:, inner])
            risk = fits(features)[0, :, 0]
            base = baseline_hazard(risk[inner], target.times[inner], target.events[inner], time)
            risks[~inner] += risk[~inner] / len(draws)
            survival[~inner] += np.exp(-base * np.exp(risk[~inner])) / len(draws)
    bins = _bins(survival)
    codes = np.empty(target.n_patients, dtype=np.int64)
    for number, members in enumerate(bins):
        codes[members] = number
    curves = kaplan_meier(target, codes.astype(str))
    rows = []
    for number, members in enumerate(bins):
        curve = curves[(curves["group"] == str(number)) & (curves["time"] <= time)].iloc[-1]
        facts = (curve["survival"], curve["low"], curve["high"])
        rows.append((one.name, "", number, len(members), survival[members].mean(), *facts))
    table = _table(rows)
    fit = fit_cox(risks[:, None], target.times[None], target.events[None], _WEAK)
    table.attrs |= {"slope": {"": float(fit.weights[0, 0, 0])}, "time": time}
    return table


def _bins(predicted: Floats) -> list[Codes]:
    """Split patients, sorted by prediction, into bins."""
    n_bins = int(np.clip(len(predicted) // _PATIENTS_PER_BIN, 2, _MAX_BINS))
    return [np.asarray(rows) for rows in np.array_split(np.argsort(predicted), n_bins)]


def _wilson(fraction: float, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of a fraction."""
    middle = (fraction + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    width = _Z / (1 + _Z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + (_Z / (2 * n)) ** 2)
    return float(middle - width), float(middle + width)


def _table(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    names = ["set", "class", "bin", "n_patients", "predicted", "observed", "low", "high"]
    return pd.DataFrame(rows, columns=names)
