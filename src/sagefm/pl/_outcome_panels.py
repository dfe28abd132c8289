"""Panels of an outcome: scores of feature sets, effects of features, learning curve."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sagefm._text import probability
from sagefm.pl._outcome_words import (
    BASELINE_SET,
    GRAY_SET,
    LEVEL,
    Row,
    is_baseline,
    is_combined,
    is_significant,
    measure,
    row_of,
    say_nothing,
    tidy,
    write_note,
)
from sagefm.pl._style import COLUMN, SIGNIFICANT, SMALL, finish, journal, wrapped

if TYPE_CHECKING:
    from sagefm.tl.outcomes import Outcome

_BAND = "#E4E4E4"
MOST_FEATURES = 14
"""Features in a forest plot."""
_EFFECTS = {"classes": "odds ratio", "survival": "hazard ratio"}


def forest(
    result: "Outcome",
    set: str | None = None,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot the effect of each feature of a set with its 95 % interval.

    Parameters
    ----------
    result
        Of :func:`sagefm.tl.outcome`.
    set
        Which feature set; the best one of the slides if not given, or all of them if that has no
        features with a meaning of their own.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Effects are hazard ratios (survival) or odds ratios (classes) on a logarithmic axis,
    or slopes (a number), per standard deviation of the feature. In color: significant after the
    correction over features (q < 0.05). Of many features, those with the smallest p are drawn.

    Raises
    ------
    InputError
        There is no such set.
    """
    name = None if set is None else str(row_of(result, set)["set"])
    with journal():
        if ax is None:
            size = (COLUMN + 0.5, 1.2 + forest_height(result, name))
            _, ax = plt.subplots(figsize=size, layout="constrained")
            write_note(ax.figure, result.note)
        draw_forest(ax, result, name)
        finish([ax], show, save)
    return ax


def learning_curve(
    result: "Outcome",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot how the concordance grows with the number of patients.

    Parameters
    ----------
    result
        Of :func:`sagefm.tl.outcome`.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. The title has the number of patients that would be needed, or that it cannot be said.
    """
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
            write_note(ax.figure, result.note)
        draw_curve(ax, result)
        finish([ax], show, save)
    return ax


def draw_scores(ax: Axes, result: "Outcome") -> None:
    """Draw the concordance of every set, beside what permutations of the patients have."""
    rows = _sorted(result.scores)
    for i, row in enumerate(rows):
        _draw_set(ax, i, row, result.permuted)
    ax.use_sticky_edges = False
    ax.axvline(0.5, color="#888888", lw=0.6, zorder=0)
    simple = [row["concordance"] for row in rows if is_baseline(row["set"])]
    if simple:
        ax.axvline(max(simple), color=BASELINE_SET, lw=0.7, ls=":", zorder=0)
    ax.set_yticks(range(len(rows)), [_label(row) for row in rows])
    ax.set(ylim=(len(rows) - 0.4, -0.7), xlabel=f"{measure(result)} (0.5: chance), 95 % interval")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title("score of each feature set (number of features)")
    has_clinical = "beyond_p" in result.scores and result.scores["beyond_p"].notna().any()
    heads = [("score", 4), ("p", 34), ("adjusted p", 62)]
    heads += [("p beyond\nclinical", 108)] if has_clinical else []
    for head, away in heads:
        ax.annotate(head, (1, 1), (away, 2), xycoords="axes fraction", fontsize=SMALL,
                    textcoords="offset points", va="bottom")  # fmt: skip
    columns = ["concordance", "p", "p_adjusted", "beyond_p"][: len(heads)]
    for i, row in enumerate(rows):
        for column, (_, away) in zip(columns, heads, strict=True):
            _write_number(ax, i, row, column, away)
    _explain(ax, simple)


def _sorted(scores: pd.DataFrame) -> list[Row]:
    """Sort sets: baselines, those of slides by score, then those that add to the clinical ones."""
    rows: list[Row] = scores.to_dict("records")
    return sorted(
        rows,
        key=lambda row: (
            2 if is_combined(row["set"]) else 0 if is_baseline(row["set"]) else 1,
            0 if is_baseline(row["set"]) else -row["concordance"],
        ),
    )


def _label(row: Row) -> str:
    return wrapped(f"{row['set']} ({int(row['n_features']):,})", 34, 2)


def _draw_set(ax: Axes, i: int, row: Row, permuted: pd.DataFrame) -> None:
    name, simple = row["set"], is_baseline(row["set"])
    color = (BASELINE_SET if simple else SIGNIFICANT) if is_significant(row) else GRAY_SET
    if name in permuted:
        low, middle, high = np.nanpercentile(permuted[name].to_numpy(dtype=float), [2.5, 50, 97.5])
        ax.barh(i, high - low, 0.66, low, color=_BAND, lw=0, zorder=0.5)
        ax.plot([middle] * 2, [i - 0.33, i + 0.33], color="#BBBBBB", lw=0.8, zorder=0.6)
    ax.plot([row["low"], row["high"]], [i, i], color=color, lw=1.2, solid_capstyle="butt")
    ax.plot(row["concordance"], i, "s" if simple else "o", color=color, ms=4.2, mew=0)


def _write_number(ax: Axes, i: int, row: Row, column: str, away: int) -> None:
    value = row[column]
    if not np.isfinite(value):
        return
    is_p = column != "concordance"
    text = probability("", value).strip("= ") if is_p else f"{value:.2f}"
    strong = is_p and column != "p" and value < LEVEL
    ax.annotate(text, (1, i), (away, 0), xycoords=ax.get_yaxis_transform(), va="center",
                textcoords="offset points", fontsize=SMALL, weight="bold" if strong else None,
                color="black" if is_significant(row) else "#777777")  # fmt: skip


def _explain(ax: Axes, simple: list[float]) -> None:
    dot: dict[str, Any] = {"marker": "o", "ls": "", "ms": 4, "mew": 0}
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=SIGNIFICANT, label=f"adjusted p < {LEVEL}", **dot),
        Line2D([], [], color=GRAY_SET, label="not significant", **dot),
        Patch(color=_BAND, label="95 % of permuted"),
    ]
    if simple:
        square = dot | {"marker": "s", "ls": ":", "lw": 0.7}
        entries.insert(2, Line2D([], [], color=BASELINE_SET, label="to be beaten", **square))
    ax.legend(handles=entries, ncols=len(entries), frameon=False, loc="lower left",
              bbox_to_anchor=(0.0, 1.0), handlelength=1.2, columnspacing=0.9, borderaxespad=0.3,
              fontsize=SMALL)  # fmt: skip


def effects_of(result: "Outcome", name: str | None) -> pd.DataFrame:
    """Get the effects of the features of a set; of all sets if those of the best have none."""
    table = result.features[result.features["set"] == (result.best if name is None else name)]
    return result.features if table.empty and name is None else table


def forest_height(result: "Outcome", name: str | None) -> float:
    """Choose the height of the rows of a forest plot, in inches: two lines where they name sets."""
    every = effects_of(result, name)
    return (0.34 if every["set"].nunique() > 1 else 0.19) * min(len(every), MOST_FEATURES)


def draw_forest(ax: Axes, result: "Outcome", name: str | None) -> None:
    """Draw the effects of the features of a set, or of all sets."""
    every = effects_of(result, name)
    sets = list(dict.fromkeys(every["set"]))
    table = every.sort_values("p", kind="stable").head(MOST_FEATURES)
    table = table.sort_values("effect", kind="stable")
    rows: list[Row] = table.to_dict("records")
    ratio = result.kind in ("classes", "survival")
    ends = table[["effect", "low", "high"]].to_numpy(dtype=float)
    ends = np.exp(np.clip(ends, -50, 50)) if ratio else ends
    left, right = _range(ends, ratio)
    for i, (row, (middle, low, high)) in enumerate(zip(rows, ends, strict=True)):
        color = SIGNIFICANT if row["q"] < LEVEL else GRAY_SET
        _draw_effect(ax, i, (middle, low, high), (left, right), color)
        text = f"{middle:.2g}  q {probability('', row['q']).strip()}".replace("q = ", "q ")
        ax.annotate(text, (1, i), (4, 0), xycoords=ax.get_yaxis_transform(), va="center",
                    textcoords="offset points", fontsize=SMALL - 0.5,
                    color="black" if row["q"] < LEVEL else "#777777")  # fmt: skip
    ax.axvline(1 if ratio else 0, color="#888888", lw=0.6, zorder=0)
    ax.set_yticks(range(len(rows)), [_feature(row, len(sets) > 1) for row in rows])
    ax.set(xlim=(left, right), ylim=(-0.7, max(len(rows), 1) - 0.3))
    if ratio:
        _log_axis(ax, left, right)
    label = _EFFECTS.get(result.kind, f"change of {result.target}")
    ax.set_xlabel(wrapped(f"{label} per standard deviation", 40))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    n_found = int((every["q"] < LEVEL).sum())
    of_all = f"; {len(rows)} of {len(every):,} features, by p" if len(every) > len(rows) else ""
    found = f"{n_found} with q < {LEVEL}" if n_found else "none significant after correction"
    what = sets[0] if len(sets) == 1 else "each feature alone"
    ax.set_title(wrapped(f"{what}: {found}{of_all}", 52))
    if every.empty:
        say_nothing(ax, "no effects of single features")


def _feature(row: Row, with_set: bool) -> str:
    of_class = f" ({row['class']})" if isinstance(row.get("class"), str) else ""
    name = wrapped(f"{row['feature']}{of_class}", 34, 1)
    if not with_set or row["set"] == row["feature"]:
        return name
    return f"{name}\n{wrapped(row['set'], 34, 1)}"


def _draw_effect(
    ax: Axes, i: int, ends: tuple[float, float, float], limits: tuple[float, float], color: str
) -> None:
    """Draw an effect and its interval; an arrow where it leaves the plot."""
    middle, low, high = ends
    ax.plot(np.clip([low, high], *limits), [i, i], color=color, lw=1.1, solid_capstyle="butt")
    for end, limit, marker in ((low, limits[0], "<"), (high, limits[1], ">")):
        if np.isfinite(end) and (end < limit if marker == "<" else end > limit):
            ax.plot(limit, i, marker, color=color, ms=3.5, mew=0, clip_on=False)
    if limits[0] <= middle <= limits[1]:
        ax.plot(middle, i, "s", color=color, ms=3.6, mew=0)


def _range(ends: np.ndarray, ratio: bool) -> tuple[float, float]:
    """Choose the range of effects: all of these, and of the intervals what is not far away."""
    finite = ends[np.isfinite(ends).all(axis=1)]
    if not len(finite):
        return (0.5, 2.0) if ratio else (-1.0, 1.0)
    values = np.log(finite) if ratio else finite
    most = max(float(np.abs(values[:, 0]).max()), 1e-9)
    low, high = max(values[:, 1].min(), -3 * most), min(values[:, 2].max(), 3 * most)
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.05 * (high - low)
    low, high = low - room, high + room
    return (float(np.exp(low)), float(np.exp(high))) if ratio else (float(low), float(high))


def _log_axis(ax: Axes, left: float, right: float) -> None:
    ax.set_xscale("log")
    subs = (1.0, 2.0, 5.0) if right / left < 300 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    if right / left < 4:  # too narrow for round powers
        ticks = [x for x in (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2) if left <= x <= right]
        ax.set_xticks(ticks)


def draw_curve(ax: Axes, result: "Outcome") -> None:
    """Draw concordance against the number of patients, and say how many would be needed."""
    curve = result.curve
    names = list(dict.fromkeys(curve["set"]))
    row = row_of(result, None)
    for name in names:
        part = curve[curve["set"] == name].sort_values("n_patients")
        main = name == result.best
        color = (SIGNIFICANT if is_significant(row) else GRAY_SET) if main else BASELINE_SET
        style = "-" if main else ":"
        ax.plot(part["n_patients"], part["concordance"], style, marker="o", ms=2.8, color=color,
                label=wrapped(name, 26, 2))  # fmt: skip
        if main or len(names) == 1:
            ax.fill_between(part["n_patients"], part["low"], part["high"], color=color, alpha=0.15,
                            lw=0)  # fmt: skip
    ax.axhline(0.5, color="#888888", lw=0.6, zorder=0)
    ax.set(xlabel="patients", ylabel=wrapped(measure(result), 30))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    tidy(ax)
    if len(names) > 1:
        ax.legend(frameon=False, loc="best", fontsize=SMALL)
    ax.set_title(wrapped(needed(result), 52))
    if curve.empty:
        say_nothing(ax, "no learning curve")


def needed(result: "Outcome") -> str:
    """Say how many patients would be needed."""
    text = str(result.curve.attrs.get("needed_text", "cannot be said"))
    if text.startswith("about") and not is_significant(row_of(result, None)):
        return f"needed, if the effect is real: {text}"
    return f"needed: {text}" if text.startswith("about") else f"patients needed {text}"
