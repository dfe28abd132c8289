"""Panels of predictions that left the patient out: by class, against the outcome, calibration."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import expit, softmax

from sagefm._colors import colors
from sagefm._types import Bools, Floats
from sagefm.pl._outcome_words import (
    GRAY_SET,
    Row,
    how_significant,
    is_significant,
    known_patients,
    risk_columns,
    row_of,
    say_nothing,
    target_columns,
    tidy,
    write_note,
)
from sagefm.pl._style import COLUMN, SIGNIFICANT, SMALL, finish, journal, wrapped
from sagefm.pl._survival import survival_calibration

if TYPE_CHECKING:
    from sagefm.tl.outcomes import Outcome

_PER_GROUP = 8
"""Patients in a group of the calibration, at least."""
_GROUPS = 5
_Z = 1.96


def outcome_calibration(
    result: "Outcome",
    *,
    suppress_below: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot what was observed against what was predicted, in groups of patients.

    Parameters
    ----------
    result
        Of :func:`sagefm.tl.outcome`.
    suppress_below
        Smallest number of patients in a group.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Predictions of the best feature set, by the fit that left the patient out, in groups
    of at least 8 patients; bars are 95 % intervals. Classes: the fraction of patients with the
    class. Survival: the Kaplan-Meier estimate at the median time of an event. Numbers: the mean.
    """
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN * 0.8, 2.9), layout="constrained")
            write_note(ax.figure, result.note)
        draw_calibration(ax, result, suppress_below)
        finish([ax], show, save)
    return ax


def draw_risks(ax: Axes, result: "Outcome") -> None:
    """Draw the prediction of each patient by its outcome: a strip per class, or a scatter plot."""
    row = row_of(result, None)
    table = known_patients(result, result.best)
    if result.kind == "number":
        _draw_scatter(ax, result, table, row)
    elif len(risk_columns(result, result.best)) > 1:
        _draw_probabilities(ax, result, table)
    else:
        _draw_strips(ax, result, table, row)
    ax.set_title(wrapped(f"each patient left out: {row['set']}\n{how_significant(row)}", 44))
    tidy(ax)


def _draw_strips(ax: Axes, result: "Outcome", table: pd.DataFrame, row: Row) -> None:
    """Draw the prediction for the patients of each class, or level."""
    truth = _classes(table[target_columns(result)[0]])
    names = list(truth.cat.categories)
    values, label = _predicted(result, table)[:, -1], "predicted level (0, 1, …)"
    if result.kind == "classes":
        label = f"predicted probability of {wrapped(str(names[-1]), 16, 1)}"
        ax.set_ylim(-0.03, 1.03)
    shades = colors(len(names)) if is_significant(row) else [GRAY_SET] * len(names)
    for i, (name, shade) in enumerate(zip(names, shades, strict=True)):
        own = values[(truth == name).to_numpy()]
        ax.plot(i + _spread(own), own, "o", ms=3, mew=0, alpha=0.65, color=shade)
        ax.plot([i - 0.3, i + 0.3], [np.median(own)] * 2, color="black", lw=1.2)
    ax.set_xticks(range(len(names)), [wrapped(str(name), 14, 2) for name in names])
    ax.set(ylabel=label, xlabel="true class", xlim=(-0.6, len(names) - 0.4))


def _draw_probabilities(ax: Axes, result: "Outcome", table: pd.DataFrame) -> None:
    """Draw the probability of each class, for the patients of each class."""
    truth = _classes(table[target_columns(result)[0]])
    p, names = _predicted(result, table), list(truth.cat.categories)
    held = _classes_predicted(result)
    width = 0.8 / len(held)
    for j, (label, shade) in enumerate(zip(held, colors(len(held)), strict=True)):
        for i, name in enumerate(names):
            values = p[(truth == name).to_numpy(), j]
            at = i + (j - (len(held) - 1) / 2) * width
            ax.plot(at + width * _spread(values), values, "o", ms=2.4, mew=0, alpha=0.55,
                    color=shade, label=wrapped(label, 14, 1) if i == 0 else None)  # fmt: skip
            ax.plot([at - 0.4 * width, at + 0.4 * width], [np.median(values)] * 2, color="black",
                    lw=1)  # fmt: skip
    ax.set_xticks(range(len(names)), [wrapped(str(name), 14, 2) for name in names])
    ax.set(ylabel="predicted probability", xlabel="true class", ylim=(-0.03, 1.03))
    ax.legend(title="probability of", frameon=False, fontsize=SMALL, loc="center left",
              bbox_to_anchor=(1, 0.5), handletextpad=0.1)  # fmt: skip


def _classes_predicted(result: "Outcome") -> list[str]:
    """List the classes that have a prediction of their own."""
    name = result.best
    return [one.removeprefix(f"risk_{name}_") for one in risk_columns(result, name)]


def _predicted(result: "Outcome", table: pd.DataFrame) -> Floats:
    """Get the predictions of the best set, patients × outputs; probabilities of classes."""
    values = table[risk_columns(result, result.best)].to_numpy(dtype=float)
    if result.kind != "classes":
        return values
    return np.asarray(expit(values) if values.shape[1] == 1 else softmax(values, axis=1))


def _draw_scatter(ax: Axes, result: "Outcome", table: pd.DataFrame, row: Row) -> None:
    [column] = target_columns(result)
    predicted = table[risk_columns(result, result.best)[0]].to_numpy(dtype=float)
    color = SIGNIFICANT if is_significant(row) else GRAY_SET
    ax.plot(predicted, table[column].to_numpy(dtype=float), "o", ms=3, mew=0, alpha=0.65,
            color=color)  # fmt: skip
    ax.axline((float(predicted.mean()),) * 2, slope=1, color="#888888", lw=0.7, ls="--", zorder=0)
    ax.set(xlabel="predicted", ylabel=f"observed {wrapped(column, 24, 1)}")


def draw_calibration(ax: Axes, result: "Outcome", suppress_below: int) -> None:
    """Draw observed against predicted means of groups of patients."""
    row = row_of(result, None)
    n_groups = min(_GROUPS, int(row["n_patients"]) // max(_PER_GROUP, suppress_below))
    if n_groups < 2:
        say_nothing(ax, "too few patients\nfor a calibration")
        return
    groups, what = _groups(result, n_groups)
    color = SIGNIFICANT if is_significant(row) else GRAY_SET
    spread = groups[["low", "high"]].sub(groups["observed"], axis=0).abs().to_numpy().T
    ax.errorbar(groups["predicted"], groups["observed"], spread, fmt="o-", ms=3.5, lw=0.9,
                elinewidth=0.9, color=color)  # fmt: skip
    ends = groups[["predicted", "observed", "low", "high"]].to_numpy(dtype=float)
    is_fraction = result.kind in ("classes", "survival")
    low, high = (0.0, 1.0) if is_fraction else (np.nanmin(ends), np.nanmax(ends))
    room = 0.03 * (high - low)
    ax.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
    ax.axline((low, low), (high, high), color="#888888", lw=0.7, ls="--", zorder=0)
    ax.set_xlabel(wrapped(f"predicted {what}", 34))
    ax.set_ylabel(wrapped(f"observed {what}", 24))
    ax.set_aspect("equal")
    unit = "predictions" if len(risk_columns(result, result.best)) > 1 else "patients"
    ax.set_title(f"calibration: {n_groups} groups of {int(groups['n'].min())} or more {unit}")
    tidy(ax)


def _groups(result: "Outcome", n_groups: int) -> tuple[pd.DataFrame, str]:
    """Compute predicted and observed means of groups of patients, and say of what."""
    name = result.best
    if result.kind == "survival":
        groups = survival_calibration(result, name, n_groups)
        time = target_columns(result)[0]
        return groups, f"survival at {groups.attrs['time']:.3g} {wrapped(time, 16, 1)}"
    table = known_patients(result, name)
    predicted, column = _predicted(result, table), table[target_columns(result)[0]]
    if result.kind == "number":
        return _means(predicted[:, 0], column.to_numpy(dtype=float), n_groups), "mean"
    truth = _classes(column)
    if result.kind == "ordinal":
        return _means(
            predicted[:, 0], np.asarray(truth.cat.codes, dtype=np.float64), n_groups
        ), "mean"
    if predicted.shape[1] > 1:
        own = truth.astype(str).to_numpy()[:, None] == np.array(_classes_predicted(result))
        return _fractions(predicted.ravel(), own.ravel(), n_groups), "fraction, all classes"
    last = truth.cat.categories[-1]
    what = f"fraction of {wrapped(str(last), 16, 1)}"
    return _fractions(predicted[:, 0], (truth == last).to_numpy(), n_groups), what


def _fractions(predicted: Floats, observed: Bools, n_groups: int) -> pd.DataFrame:
    """Compute the fraction of patients with a class, with Wilson's interval."""
    rows = []
    for members in np.array_split(np.argsort(predicted, kind="stable"), n_groups):
        n, p = len(members), float(observed[members].mean())
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        rows.append((predicted[members].mean(), p, middle - half, middle + half, n))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "n"])


def _means(predicted: Floats, observed: Floats, n_groups: int) -> pd.DataFrame:
    """Compute the mean of groups of patients, with an interval."""
    rows = []
    for members in np.array_split(np.argsort(predicted, kind="stable"), n_groups):
        n, mean = len(members), float(observed[members].mean())
        half = _Z * float(observed[members].std(ddof=1)) / np.sqrt(n)
        rows.append((predicted[members].mean(), mean, mean - half, mean + half, n))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "n"])


def _classes(column: "pd.Series[Any]") -> "pd.Series[pd.CategoricalDtype]":
    """Get the classes of patients, in the order that the column has, or sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories()
    names = sorted(column.unique(), key=lambda name: (isinstance(name, str), name))
    return column.astype(pd.CategoricalDtype(names))


def _spread(values: Floats) -> Floats:
    """Move dots sideways, so that those of similar values lie beside each other."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(((rank * 0.618034) % 1 - 0.5) * 0.5)
