"""Low and high risk groups: Kaplan-Meier curves, and a log-rank test that knows how they came."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._extras import require
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.evaluation import Evaluation, p_value
from sagefm.stats.outcomes.kinds import SurvivalTarget


@dataclass(frozen=True)
class RiskGroups:
    """Survival of patients whose out-of-fold risk is low or high."""

    curves: pd.DataFrame
    """Kaplan-Meier curves: group, time, survival, low, high (95 %), at_risk, events."""
    n_low: int
    n_high: int
    z: float
    """Log-rank statistic, above zero if patients of high risk had more events than expected."""
    p: float
    """By permutation, one-sided. The usual p of a log-rank test is not right for groups that are
    cross-validated on the same outcome: the groups are not independent of it."""


def risk_groups(target: SurvivalTarget, evaluation: Evaluation, name: str) -> RiskGroups:
    """Compare the survival of patients of low and high risk.

    Parameters
    ----------
    target
        The outcome.
    evaluation
        Of this target. A patient's risk is high if it is above the median of the patients that its
        fit was trained on, on average over the draws of folds.
    name
        Of a set of features.

    Raises
    ------
    InputError
        lifelines is not installed.
    """
    high = evaluation.margins[name] > 0
    z = log_rank(target, high, evaluation.labelings)
    curves = kaplan_meier(target, np.where(high[0], "high", "low"))
    n_high = int(high[0].sum())
    return RiskGroups(curves, high.shape[1] - n_high, n_high, float(z[0]), p_value(z))


def kaplan_meier(target: SurvivalTarget, groups: NDArray[np.str_]) -> pd.DataFrame:
    """Estimate the survival of groups of patients with a known outcome.

    Returns
    -------
    A row per group and time: group, time, survival, low, high (95 %), at_risk (just before the
    time) and events.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what newer versions of pandas deprecate
        lifelines = require("lifelines", "outcome", "a Kaplan-Meier curve")
        tables = []
        for group in np.unique(groups):
            rows = groups == group
            fit = lifelines.KaplanMeierFitter().fit(target.times[rows], target.events[rows])
            bounds = fit.confidence_interval_survival_function_.to_numpy(dtype=np.float64)
            columns = {
                "group": str(group),
                "time": fit.survival_function_.index.to_numpy(dtype=np.float64),
                "survival": fit.survival_function_.to_numpy(dtype=np.float64)[:, 0],
                "low": bounds[:, 0],
                "high": bounds[:, 1],
                "at_risk": fit.event_table["at_risk"].to_numpy(dtype=np.int64),
                "events": fit.event_table["observed"].to_numpy(dtype=np.int64),
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def log_rank(target: SurvivalTarget, high: Bools, orders: Codes) -> Floats:
    """Compute the log-rank statistic of each labeling.

    Parameters
    ----------
    target
        The outcome.
    high
        Labelings × patients with a known outcome.
    orders
        Labelings × patients: the number of the outcome that each has.

    Returns
    -------
    z, above zero if those in `high` have more events than expected; 0 where all are in one group.
    """
    group = np.empty(high.shape)  # of outcomes, which have the same times in each labeling
    np.put_along_axis(group, orders, high, axis=1)
    times = np.unique(target.times[target.events])
    at_risk = (target.times >= times[:, None]).astype(np.float64)
    happened = ((target.times == times[:, None]) & target.events).astype(np.float64)
    n, d = at_risk.sum(axis=1), happened.sum(axis=1)
    fraction = group @ at_risk.T / n
    excess = (group @ happened.T - d * fraction).sum(axis=1)
    variance = (d * (n - d) / np.maximum(n - 1, 1) * fraction * (1 - fraction)).sum(axis=1)
    return np.asarray(excess / np.sqrt(np.where(variance > 0, variance, np.inf)))
