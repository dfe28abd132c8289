"""Tests over patients: of one value per patient, and of two conditions."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from scipy import stats

from sagefm._types import Floats
from sagefm.stats.resampling import LEAST_UNITS, benjamini_hochberg, sign_flip_p

_N_PERMUTATIONS = 9_999


def one_sample_p(values: Floats) -> Floats:
    """Test whether means over the first axis are 0, by a t test; NaN for fewer than 3 values."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=0) / n
        squared = np.nansum((values - mean) ** 2, axis=0) / (n - 1)
        t = mean / np.sqrt(squared / n)
        p = 2 * stats.t.sf(np.abs(t), n - 1)
    return np.where(n >= LEAST_UNITS, p, np.nan)


def compare_conditions(
    values: pd.DataFrame, by: Sequence[str], value: str, seed: int = 0
) -> pd.DataFrame:
    """Compare every two conditions, over patients.

    Values of several sections of a patient in one condition are averaged. Where patients have both
    conditions, these are compared within the patients by flipping signs; otherwise patients are
    permuted between the conditions. Both are exact for few patients.

    Parameters
    ----------
    values
        Columns `by`, `value`, patient and condition (missing: left out).
    by
        Columns of what is compared.
    value
        Column with the value.
    seed
        Seed of the permutations, where there are too many.

    Returns
    -------
    `by`, condition, other_condition, mean, mean_other, difference, p, p_least (that so few patients
    allow), q (over the rows of two conditions), n, n_other, paired.
    """
    known = values.dropna(subset=["condition", value])
    means = known.groupby([*by, "patient", "condition"], sort=False, observed=True)[value].mean()
    rows = []
    conditions = sorted(known["condition"].unique())
    levels = by[0] if len(by) == 1 else list(by)
    for what, own in means.groupby(level=levels, sort=False):
        wide = own.droplevel(list(by)).unstack("condition").reindex(columns=conditions)
        names = what if isinstance(what, tuple) else (what,)
        for first, second in combinations(conditions, 2):
            row = dict(zip(by, names, strict=True)) | {
                "condition": first,
                "other_condition": second,
            }
            rows.append(row | _compared(wide[first], wide[second], seed))
    columns = [
        *by, "condition", "other_condition", "mean", "mean_other", "difference", "p", "p_least",
        "q", "n", "n_other", "paired",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    for _, pair in table.groupby(["condition", "other_condition"]):
        table.loc[pair.index, "q"] = benjamini_hochberg(pair["p"].astype(float))
    return table


def _compared(
    first: "pd.Series[float]", second: "pd.Series[float]", seed: int
) -> dict[str, object]:
    both = first.notna() & second.notna()
    paired = bool(both.any())
    a, b = (column[both] if paired else column.dropna() for column in (first, second))
    means = [float(x.mean()) if len(x) else np.nan for x in (a, b)]
    p = least = np.nan
    if paired and len(a) >= 2:
        p, least = sign_flip_p(a.to_numpy() - b.to_numpy(), seed), 2.0 ** (1 - len(a))
    elif not paired and min(len(a), len(b)) >= 2:
        p = _permutation_p(np.asarray(a, np.float64), np.asarray(b, np.float64), seed)
        # Equal numbers can be exchanged, so that two ways are as extreme.
        least = (1 + (len(a) == len(b))) / comb(len(a) + len(b), len(a))
        least = max(least, 1 / (_N_PERMUTATIONS + 1))
    return {
        "mean": means[0], "mean_other": means[1], "difference": means[0] - means[1], "p": p,
        "p_least": least, "q": np.nan, "n": len(a), "n_other": len(b), "paired": paired,
    }  # fmt: skip


def _permutation_p(a: Floats, b: Floats, seed: int) -> float:
    """Test a difference of means by permuting patients; two-sided in its absolute value."""
    test = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis)),
        alternative="greater", vectorized=True, n_resamples=_N_PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)
