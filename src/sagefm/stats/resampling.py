"""Bootstrap and tests over slides or patients: each is one observation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

N_BOOTSTRAPS = 2000
LEAST_UNITS = 3
"""Minimum number of patients to resample; with fewer, slides are resampled."""
LEVEL = 0.95


def units_of(patients: "pd.Series[str]") -> tuple["pd.Series[str]", str]:
    """Choose what is resampled: patients if there are at least three, else slides.

    Parameters
    ----------
    patients
        Slide (the index) → patient.

    Returns
    -------
    Slide → unit, and the name of the unit: ``"patient"`` or ``"slide"``.
    """
    if patients.nunique() >= LEAST_UNITS:
        return patients, "patient"
    return pd.Series(patients.index, index=patients.index, dtype=object), "slide"


def resampled(n_units: int, seed: int, n_draws: int = N_BOOTSTRAPS) -> NDArray[np.float64]:
    """Draw bootstrap weights: draws × units, how often each unit is drawn, divided by their number.

    The same seed gives the same draws, so that methods are compared on the same resamples.
    """
    drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), n_draws)
    return drawn / n_units


def interval(draws: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Compute the 95 % percentile interval of bootstrap draws; NaN if all draws are NaN."""
    draws = np.asarray(draws, dtype=np.float64)
    tail = 50 * (1 - LEVEL)
    if np.isnan(draws).all():
        return np.full((2, *np.delete(draws.shape, axis)), np.nan)
    return np.asarray(np.nanpercentile(draws, [tail, 100 - tail], axis=axis))


def over_units(
    scores: pd.DataFrame, metrics: Sequence[str], patients: "pd.Series[str]", *, by: str = "method"
) -> tuple[pd.DataFrame, str]:
    """Average scores within each unit, over seeds and sections of a patient.

    Parameters
    ----------
    scores
        A row per `by` and slide (and seed, …), with a column ``slide``.
    metrics
        Columns of `scores`.
    patients
        Slide → patient.

    Returns
    -------
    A row per (`by`, unit), in the order of `scores`; and the name of the unit.
    """
    shown = patients.loc[list(dict.fromkeys(scores["slide"]))]
    units, unit = units_of(shown)
    per_slide = scores.groupby([by, "slide"], sort=False)[list(metrics)].mean().reset_index()
    per_slide["unit"] = per_slide["slide"].map(units)
    return per_slide.groupby([by, "unit"], sort=False)[list(metrics)].mean(), unit


def summarize(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    patients: "pd.Series[str]",
    *,
    by: str = "method",
    seed: int = 0,
) -> pd.DataFrame:
    """Average scores over patients, with bootstrap intervals over patients.

    Parameters
    ----------
    scores, metrics, patients
        As for :func:`over_units`.
    by
        Column with a row of the result per value.
    seed
        Seed of the resampling.

    Returns
    -------
    A row per value of `by`, in the order of `scores`: the value, ``n_slides``, ``n_patients``, and
    for each metric its mean over units, ``…_low`` and ``…_high`` (95 %; missing for fewer than
    three units). ``unit`` says what was resampled: patients, or slides if there are fewer than
    three patients.
    """
    per_unit, unit = over_units(scores, metrics, patients, by=by)
    rows = []
    for method, values in per_unit.groupby(level=0, sort=False):
        slides = scores.loc[scores[by] == method, "slide"].unique()
        row: dict[str, object] = {
            by: method, "n_slides": len(slides), "n_patients": patients.loc[slides].nunique(),
            "unit": unit,
        }  # fmt: skip
        for metric in metrics:
            finite = values[metric].dropna().to_numpy()
            low, high = mean_interval(finite, seed)
            mean = float(finite.mean()) if len(finite) else np.nan
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def mean_interval(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Compute the bootstrap interval of the mean; NaN for fewer than three values."""
    if len(values) < LEAST_UNITS:
        return np.full(2, np.nan)
    return interval(resampled(len(values), seed) @ values)


def compare(
    scores: pd.DataFrame,
    metric: str,
    against: str,
    patients: "pd.Series[str]",
    *,
    by: str = "method",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every method with one of them, paired over patients.

    Parameters
    ----------
    scores, patients, by, seed
        As for :func:`summarize`.
    metric
        Column of `scores`.
    against
        The method that the others are compared with.

    Returns
    -------
    A row per other method: `by`, ``difference`` (method minus `against`, mean over units) with its
    interval, ``p`` (sign-flip permutation test over units, two-sided, exact up to 13 units),
    ``q`` (Benjamini-Hochberg over the rows) and ``n_units``. With n units p cannot be below
    2 / 2**n: five patients or fewer never reach 0.05.
    """
    per_unit, unit = over_units(scores, [metric], patients, by=by)
    wide = per_unit[metric].unstack(0)
    rows = []
    for method in [name for name in dict.fromkeys(scores[by]) if name != against]:
        difference = (wide[method] - wide[against]).dropna().to_numpy()
        low, high = mean_interval(difference, seed)
        rows.append(
            {
                by: method,
                "against": against,
                "difference": float(difference.mean()) if len(difference) else np.nan,
                "low": low,
                "high": high,
                "p": sign_flip_p(difference, seed),
                "n_units": len(difference),
                "unit": unit,
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(list(table).index("p") + 1, "q", benjamini_hochberg(table["p"]))
    return table


def sign_flip_p(difference: ArrayLike, seed: int = 0) -> float:
    """Test paired differences by flipping their signs (two-sided permutation test).

    Exact if there are at most 9,999 sign patterns (2**n), else by as many random ones.

    Returns
    -------
    p; 1 where all differences are zero, NaN for fewer than two.
    """
    difference = np.asarray(difference, dtype=np.float64)
    if len(difference) < 2:
        return float("nan")
    test = stats.permutation_test(
        (difference, np.zeros_like(difference)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p values for the false discovery rate; missing values are ignored."""
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    finite = ~np.isnan(p)
    if finite.any():
        q[finite] = stats.false_discovery_control(p[finite])
    return q


def verdicts(
    summary: pd.DataFrame,
    scores: pd.DataFrame,
    metric: str,
    kinds: Mapping[str, str],
    patients: "pd.Series[str]",
    *,
    untrained: Mapping[str, str] | None = None,
    larger_is_better: bool = True,
    by: str = "method",
    seed: int = 0,
) -> "pd.Series[str]":
    """Judge whether each model beats the best baseline, and its network with random weights.

    Parameters
    ----------
    summary
        Of :func:`summarize`, with a column `metric`.
    scores, patients, by, seed
        As for :func:`summarize`.
    kinds
        Method → ``"baseline"``, ``"model"`` or ``"control"``.
    untrained
        Model → the control with the same network and random weights.

    Returns
    -------
    A text for each row of `summary`, empty for all but models: wins or loses if the 95 % interval
    of the paired difference excludes zero, else undecided. A model that does not beat its own
    network with random weights does not win, for what it has learned has no part in it.
    """
    of_baselines = summary[summary[by].map(kinds) == "baseline"].set_index(by)[metric].dropna()
    if of_baselines.empty:
        return pd.Series("", index=summary.index)
    best = str(of_baselines.idxmax() if larger_is_better else of_baselines.idxmin())
    sign = 1 if larger_is_better else -1
    measured = set(summary[by])

    def judge(method: str) -> str:
        if kinds.get(method) != "model":
            return ""
        others = [best, *{(untrained or {}).get(method, best)} & measured - {best}]
        found = [
            _compared(scores, metric, method, other, patients, by=by, sign=sign, seed=seed)
            for other in others
        ]
        text = "; ".join(words for _, words in found)
        decided = found[0][0] is False or all(won for won, _ in found)
        return text if decided else f"undecided: {text}"

    return pd.Series([judge(str(method)) for method in summary[by]], index=summary.index)


def _compared(
    scores: pd.DataFrame,
    metric: str,
    method: str,
    against: str,
    patients: "pd.Series[str]",
    *,
    by: str,
    sign: int,
    seed: int,
) -> tuple[bool | None, str]:
    """Compare two methods: whether the first wins, None if undecided; and the words for it."""
    pair = scores[scores[by].isin([method, against])]
    row = compare(pair, metric, against, patients, by=by, seed=seed).iloc[0]
    gain = sign * row["difference"]
    won = bool(gain > 0) if row["low"] > 0 or row["high"] < 0 else None
    words = {True: "beats", False: "loses to", None: "ahead of" if gain > 0 else "behind"}
    return won, f"{words[won]} {against} ({row['difference']:+.3f})"
