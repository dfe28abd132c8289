"""The effect of each feature alone, such as hazard ratios, for a forest plot."""

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as t_distribution

from sagefm._types import Codes, Floats
from sagefm.stats.outcomes.cox import cox_information
from sagefm.stats.outcomes.evaluation import FeatureSet
from sagefm.stats.outcomes.kinds import ClassTarget, NumberTarget, SurvivalTarget
from sagefm.stats.outcomes.linear import RIDGE, LinearFits
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.resampling import LEVEL, benjamini_hochberg

_AT_ONCE = 500
_CONSTANT = 1e-9
EFFECTS = {
    "classes": "log odds ratio",
    "survival": "log hazard ratio",
    "number": "slope",
    "ordinal": "slope in levels",
}
"""What an effect is, per standard deviation of a feature."""


def effects(target: Target, one: FeatureSet, *, strata: Codes | None = None) -> pd.DataFrame:
    """Fit the outcome to each feature alone.

    Parameters
    ----------
    target
        The outcome.
    one
        A set of features.
    strata
        Code of each patient of the table, such as its site: p is of outcomes that are permuted
        within equal codes.

    Returns
    -------
    A row per feature (and class, if there are more than two): set, feature, class, effect with low
    and high (95 %, Wald), p and q (Benjamini-Hochberg over the rows). The effect is per standard
    deviation of the feature (``attrs["effect"]`` says what it is), with the same small penalty as
    in all fits, so that it is finite where a feature separates classes. p is of the score test
    (Cochran-Armitage, Pearson, log-rank) with the mean and variance that it has over all
    permutations. A feature that does not vary has no effect, and p = 1.
    """
    values = np.asarray(one.at(target.known), dtype=np.float64)[target.known]
    center = np.nanmean(np.where(np.isfinite(values).any(axis=0), values, 0.0), axis=0)
    values = np.where(np.isfinite(values), values, center)
    spread = values.std(axis=0, ddof=1)
    varies = spread > _CONSTANT * (1 + np.abs(center))
    x = (values - center) / np.where(varies, spread, np.inf)
    within = np.zeros(len(x), dtype=np.int64) if strata is None else strata[target.known]
    tables = []
    for name, case in _cases(target):
        effect, error = _fit_each(case, x)
        width = norm.ppf(0.5 + LEVEL / 2) * error
        columns = {
            "set": one.name, "feature": one.features, "class": name,
            "effect": np.where(varies, effect, 0.0),
            "low": np.where(varies, effect - width, np.nan),
            "high": np.where(varies, effect + width, np.nan),
            "p": np.where(varies, score_test(_residuals(case), x, within), 1.0),
        }  # fmt: skip
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables, ignore_index=True)
    table["q"] = benjamini_hochberg(table["p"])
    table.attrs["effect"] = EFFECTS[target.kind]
    return table


def _cases(target: Target) -> list[tuple[str, Target]]:
    """Compare each of more than two classes with the rest."""
    if not isinstance(target, ClassTarget):
        return [("", target)]
    if len(target.classes) == 2:
        return [(target.classes[1], target)]
    return [
        (name, ClassTarget(target.name, target.known, ["rest", name], _one(target.codes == code)))
        for code, name in enumerate(target.classes)
    ]


def _one(member: object) -> Codes:
    return np.asarray(member, dtype=np.int64)


def _fit_each(target: Target, x: Floats) -> tuple[Floats, Floats]:
    """Fit to each column alone: slopes and their standard errors."""
    slopes, errors = [], []
    truth = np.arange(target.n_patients)
    for start in range(0, x.shape[1], _AT_ONCE):
        columns = x.T[start : start + _AT_ONCE, :, None]  # features × patients × 1
        orders = np.tile(truth, (len(columns), 1))
        fits = target.fit(columns, orders)
        slopes.append(fits.weights[:, 0, 0])
        errors.append(_errors(target, columns, fits))
    return np.concatenate(slopes), np.concatenate(errors)


def _errors(target: Target, x: Floats, fits: LinearFits) -> Floats:
    """Compute standard errors of slopes from the curvature of the loss."""
    predicted = fits(x)[..., 0]
    x = x[..., 0]
    if isinstance(target, SurvivalTarget):
        information = cox_information(x, target.times, target.events, fits.weights[:, 0, 0])
        return np.asarray(1 / np.sqrt(information + RIDGE))
    if isinstance(target, NumberTarget):
        residuals = target.values - predicted
        variance = (residuals**2).sum(axis=1) / (len(target.values) - 2)
        return np.asarray(np.sqrt(variance / ((x**2).sum(axis=1) + RIDGE)))
    p = expit(predicted)
    weights = p * (1 - p)
    total = np.maximum(weights.sum(axis=1), 1e-12)
    information = (weights * x**2).sum(axis=1) - (weights * x).sum(axis=1) ** 2 / total
    return np.asarray(1 / np.sqrt(information + RIDGE))


def _residuals(target: Target) -> Floats:
    """Compute how far each patient is from what is expected without any feature."""
    if isinstance(target, ClassTarget):
        return np.asarray(target.codes - target.codes.mean())
    if isinstance(target, NumberTarget):
        return np.asarray(target.values - target.values.mean())
    assert isinstance(target, SurvivalTarget)
    at_risk = (target.times[:, None] <= target.times).sum(axis=1)
    happened = target.events[:, None] & (target.times[:, None] <= target.times)
    return np.asarray(target.events - (happened / at_risk[:, None]).sum(axis=0))


def score_test(residuals: Floats, x: Floats, strata: Codes) -> Floats:
    """Test for each column whether it goes with residuals, by the moments over permutations.

    Parameters
    ----------
    residuals
        Of each patient.
    x
        Patients × features.
    strata
        Residuals are permuted within equal codes.

    Returns
    -------
    p, two-sided, of Student's t distribution; 1 where nothing varies.
    """
    total, variance, freedom = np.zeros(x.shape[1]), np.zeros(x.shape[1]), -1
    for code in np.unique(strata):
        rows = strata == code
        if (n := int(rows.sum())) < 2:
            continue
        r, columns = residuals[rows] - residuals[rows].mean(), x[rows] - x[rows].mean(axis=0)
        total += r @ columns
        variance += (r**2).sum() * (columns**2).sum(axis=0) / (n - 1)
        freedom += n - 1
    if freedom < 1:
        return np.ones(x.shape[1])
    z2 = np.divide(total**2, variance, out=np.zeros_like(total), where=variance > _CONSTANT**2)
    t = np.sqrt(freedom * z2 / np.maximum(freedom + 1 - z2, 1e-12))
    return np.asarray(2 * t_distribution.sf(t, freedom))
