"""The effect of each feature alone, with its interval: what a forest plot shows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from sagefm._types import Bools, Floats
from sagefm.stats.outcomes import ClassTarget, FeatureSet, NumberTarget, SurvivalTarget, Target
from sagefm.stats.resampling import benjamini_hochberg

_STEPS = 50
_LARGEST_STEP = 1.0
_COLUMNS = ["set", "feature", "effect", "low", "high", "p", "q"]

Estimates = tuple[Floats, Floats]
"""Effect of each feature, and its standard error."""


def effects(target: Target, sets: Sequence[FeatureSet]) -> pd.DataFrame:
    """Estimate the effect of each feature alone, per standard deviation.

    Log odds (of each class against the rest; with Firth's penalty, so that they are finite where a
    feature separates classes), log hazard (Cox) or slope; 95 % intervals and p by the standard
    error. Of more than two classes, ``class`` says which. Features that do not differ between
    patients are left out.
    """
    tables = []
    for one in sets:
        values = one.at(target.known)[target.known]
        spread = values.std(axis=0)
        varies = spread > 1e-9 * np.maximum(np.abs(values).max(axis=0), 1e-9)
        x = (values - values.mean(axis=0))[:, varies] / spread[varies]
        if not varies.any():
            continue
        names = [name for name, kept in zip(one.features, varies, strict=True) if kept]
        for output, (estimate, error) in _estimates(target, x).items():
            freedom = target.n_patients - 2 if isinstance(target, NumberTarget) else None
            tail = norm if freedom is None else student(freedom)
            tables.append(
                pd.DataFrame(
                    {
                        "set": one.name, "feature": names, "class": output, "effect": estimate,
                        "low": estimate - tail.ppf(0.975) * error,
                        "high": estimate + tail.ppf(0.975) * error,
                        "p": 2 * tail.sf(np.abs(estimate) / error),
                    }
                )
            )  # fmt: skip
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_COLUMNS)
    table["q"] = benjamini_hochberg(table["p"].astype(float))
    several = len(target.outputs) > 1
    return table if several else table.drop(columns="class", errors="ignore")


def _estimates(target: Target, x: Floats) -> dict[str, Estimates]:
    if isinstance(target, ClassTarget):
        codes = range(len(target.classes))[-len(target.outputs) :]
        return {
            output: log_odds(x, target.codes == code)
            for output, code in zip(target.outputs, codes, strict=True)
        }
    if isinstance(target, SurvivalTarget):
        return {target.name: log_hazards(x, target.times, target.events)}
    if isinstance(target, NumberTarget):
        return {target.name: slopes(x, target.values)}
    raise TypeError(type(target).__name__)


def slopes(x: Floats, values: Floats) -> Estimates:
    """Fit a line to each standardized feature."""
    n = len(x)
    centered = values - values.mean()
    slope = centered @ x / n
    residuals = centered[:, None] - x * slope
    return slope, np.sqrt((residuals**2).sum(axis=0) / max(n - 2, 1) / n)


def log_odds(x: Floats, member: Bools) -> Estimates:
    """Fit a logistic regression with Firth's penalty to each feature."""
    y = member.astype(float)[:, None]
    at = np.zeros((2, x.shape[1]))
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(at[0] + at[1] * x)))
        w = np.maximum(p * (1 - p), 1e-12)
        s0, s1, s2 = w.sum(axis=0), (w * x).sum(axis=0), (w * x**2).sum(axis=0)
        determinant = s0 * s2 - s1**2
        leverage = w * (s2 - 2 * x * s1 + x**2 * s0) / determinant
        residuals = y - p + leverage * (0.5 - p)
        u0, u1 = residuals.sum(axis=0), (residuals * x).sum(axis=0)
        step = np.stack([s2 * u0 - s1 * u1, s0 * u1 - s1 * u0]) / determinant
        at += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < 1e-9:
            break
    return at[1], np.sqrt(s0 / determinant)


def log_hazards(x: Floats, times: Floats, events: Bools) -> Estimates:
    """Fit a Cox regression (Breslow's ties) to each feature."""
    order = np.argsort(-times, kind="stable")
    x, times, events = x[order], times[order], events[order]
    # Patients at risk at a time are those up to the last with the same time, from the longest on.
    last = np.searchsorted(-times, -times[events], side="right") - 1
    at = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        risk = np.exp(np.clip(at * x, -500, 500))
        sums = [np.cumsum(risk * x**power, axis=0)[last] for power in range(3)]
        mean = sums[1] / sums[0]
        information = (sums[2] / sums[0] - mean**2).sum(axis=0)
        step = (x[events] - mean).sum(axis=0) / np.maximum(information, 1e-12)
        at += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < 1e-9:
            break
    return at, 1 / np.sqrt(np.maximum(information, 1e-12))
