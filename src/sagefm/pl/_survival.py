"""Kaplan-Meier curves of cross-validated risk groups, and survival as predicted and observed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._text import or_below
from sagefm.pl._outcome_words import (
    how_significant,
    is_significant,
    known_patients,
    risk_columns,
    row_of,
    target_columns,
    tidy,
    write_note,
)
from sagefm.pl._style import COLUMN, SMALL, finish, journal, wrapped
from sagefm.stats.outcomes.cox import baseline_hazard

if TYPE_CHECKING:
    from sagefm.tl.outcomes import Outcome

_COLORS = {"low": "#0072B2", "high": "#D55E00"}
_GRAYS = {"low": "#AAAAAA", "high": "#444444"}
"""Colors of the risk groups, and those where nothing is significant."""
_ROW = 10
"""Points between the rows of the numbers at risk."""


def kaplan_meier(
    result: "Outcome",
    *,
    suppress_below: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot the survival of patients with a low and a high risk that others have predicted.

    Parameters
    ----------
    result
        Of :func:`sagefm.tl.outcome`, with time and event.
    suppress_below
        Numbers at risk from 1 to below this are written as ``<5``.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes: Kaplan-Meier estimates with 95 % intervals, ticks where patients were censored, and
    the numbers at risk below. The risk of a patient comes from the fit that left it out, and is
    compared with the median of the patients of that fit. p is that of the best feature set, by
    permutation of the patients; a log-rank test would take the groups as given.

    Raises
    ------
    InputError
        The outcome is no survival, or lifelines is not installed.
    """
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN + 0.2, 3.1), layout="constrained")
            write_note(ax.figure, result.note)
        draw_kaplan_meier(ax, result, suppress_below)
        finish([ax], show, save)
    return ax


def draw_kaplan_meier(ax: Axes, result: "Outcome", suppress_below: int) -> None:
    """Draw a curve for each risk group, with the numbers at risk."""
    if result.kind != "survival":
        raise InputError(f"{result.target}: is no survival; give a time and an event as target")
    lifelines = require("lifelines", "outcome", "a Kaplan-Meier curve")
    row = row_of(result, None)
    time, event = target_columns(result)
    table = known_patients(result, result.best)
    ends: list[float] = []
    shades = _COLORS if is_significant(row) else _GRAYS
    for name, color in shades.items():
        members = table[table["group"] == name]
        if members.empty:
            continue
        fit = lifelines.KaplanMeierFitter().fit(
            members[time].astype(float), members[event].astype(float)
        )
        _draw_curve(ax, fit, f"{name} risk (n = {or_below(len(members), suppress_below)})", color)
        ends.append(float(members[time].astype(float).max()))
    ax.set(xlim=(0, 1.02 * max(ends, default=1.0)), ylim=(0, 1.03), ylabel="survival")
    ax.locator_params(axis="x", nbins=6)
    tidy(ax)
    ax.legend(frameon=False, loc="best", fontsize=SMALL)
    ax.set_title(wrapped(f"cross-validated risk groups: {row['set']}\n{how_significant(row)}", 44))
    _write_at_risk(ax, table, time, suppress_below, shades)


def _draw_curve(ax: Axes, fit: Any, label: str, color: str) -> None:
    """Draw a Kaplan-Meier estimate with its interval, and ticks where patients were censored."""
    steps = fit.survival_function_.iloc[:, 0]
    band = fit.confidence_interval_
    ax.step(steps.index, steps, where="post", color=color, label=label)
    ax.fill_between(band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=color,
                    alpha=0.13, lw=0)  # fmt: skip
    censored = fit.event_table.index[fit.event_table["censored"] > 0]
    ax.plot(censored, fit.predict(censored), "|", color=color, ms=4, mew=0.7)


def _write_at_risk(
    ax: Axes, table: pd.DataFrame, time: str, suppress_below: int, shades: Mapping[str, str]
) -> None:
    """Write how many patients of each group are at risk, below the axis."""
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick <= ax.get_xlim()[1]]
    times = table[time].astype(float)
    for i, (name, color) in enumerate(shades.items()):
        below = -(36 + _ROW * i)
        members = times[table["group"] == name].to_numpy()
        for tick in ticks:
            count = int((members >= tick).sum())
            ax.annotate(or_below(count, suppress_below), (tick, 0), (0, below), color=color,
                        xycoords=ax.get_xaxis_transform(), textcoords="offset points", ha="center",
                        va="center", fontsize=SMALL)  # fmt: skip
        ax.annotate(f"{name} risk", (0, 0), (-12, below), xycoords="axes fraction", color=color,
                    textcoords="offset points", ha="right", va="center", size=SMALL)  # fmt: skip
    ax.annotate("at risk", (0, 0), (-12, _ROW - 36), xycoords="axes fraction", fontsize=SMALL,
                textcoords="offset points", ha="right", va="center")  # fmt: skip
    ax.set_xlabel(wrapped(time, 30, 1))


def survival_calibration(result: "Outcome", name: str, n_groups: int) -> pd.DataFrame:
    """Compare predicted and observed survival at the median time of an event, in groups of risk.

    The predicted survival has the baseline hazard of all patients (Breslow's estimate), and the
    risk that was predicted for each patient by the fit that left it out.

    Returns
    -------
    A row per group: predicted, observed, low, high, n; ``attrs["time"]``.
    """
    lifelines = require("lifelines", "outcome", "the calibration of a survival")
    time, event = target_columns(result)
    table = known_patients(result, name)
    times, died = table[time].to_numpy(dtype=float), table[event].to_numpy(dtype=float) > 0
    risk = table[risk_columns(result, name)[0]].to_numpy(dtype=float)
    horizon = float(np.median(times[died]))
    risk -= risk.mean()
    predicted = np.exp(-baseline_hazard(risk, times, died, horizon) * np.exp(risk))
    rows = []
    for members in np.array_split(np.argsort(predicted, kind="stable"), n_groups):
        fit = lifelines.KaplanMeierFitter().fit(times[members], died[members])
        band = fit.confidence_interval_
        at = band.index <= horizon
        low, high = band[at].iloc[-1]
        rows.append(
            {"predicted": predicted[members].mean(), "observed": float(fit.predict(horizon)),
             "low": low, "high": high, "n": len(members)}
        )  # fmt: skip
    found = pd.DataFrame(rows)
    found.attrs["time"] = horizon
    return found
