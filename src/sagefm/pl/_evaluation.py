"""How methods compare: their scores, their genes, and their calibration."""

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Floats
from sagefm.pl._style import COLUMN, colors, finish, journal

SMALLER_IS_BETTER = frozenset({"mse", "excess", "deviance", "ece", "davies_bouldin"})
_WHAT = {
    "mse": "mean squared error (log1p counts)",
    "excess": "mean squared error above counting noise",
    "deviance": "Poisson deviance",
    "ece": "expected calibration error",
    "r_within": "correlation within slides",
    "r_pooled": "correlation, all slides pooled",
    "r_depth_removed": "correlation, depth removed",
    "ari": "adjusted Rand index",
    "nmi": "normalized mutual information",
    "auroc": "area under the ROC curve",
    "macro_f1": "macro F1",
}
_GRAYS = {"baseline": "#444444", "control": "#AAAAAA"}
_MARKERS = {"model": "o", "baseline": "s", "control": "D"}
_LEAST_ENTRIES = 100
"""A bin of the calibration with fewer hidden entries says nothing."""


def gene_scatter(
    genes: pd.DataFrame,
    method: str,
    yardstick: str,
    value: str = "r_within",
    *,
    task: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw every gene: how well a method predicts it beside how well a yardstick does.

    Parameters
    ----------
    genes
        Table ``recovery_genes`` or ``imputation_genes`` of a result: gene, method, task, detected
        (share of spots) and `value`.
    method, yardstick
        Whose genes are compared.
    value
        Column to compare, such as ``r_within`` or ``mse``.
    task
        Which task, where the table holds several.
    title
        Above the picture, before the share of genes that the method is better for.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Genes without a value for both are left out; the title counts ties half.

    Raises
    ------
    InputError
        The table lacks the column, task or one of the methods.
    """
    genes = only(_with(genes, value), task=task)
    own, other = (only(genes, method=name).set_index("gene") for name in (method, yardstick))
    pairs = pd.DataFrame({"x": other[value], "y": own[value], "detected": own["detected"]})
    pairs = pairs.dropna(subset=["x", "y"])
    down = value in SMALLER_IS_BETTER
    gain = (pairs["y"] - pairs["x"]) * (-1 if down else 1)
    share = float((gain > 0).mean() + (gain == 0).mean() / 2)
    outcome = (
        f"better for {100 * share:.0f} % of {len(pairs):,} genes" if len(pairs) else "no genes"
    )
    what = _WHAT.get(value, value)
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.9), layout="constrained")
        points = ax.scatter(
            pairs["x"], pairs["y"], c=pairs["detected"], cmap="cividis", vmin=0, vmax=1, s=5,
            alpha=0.8, linewidths=0, rasterized=len(pairs) > 2000,
        )  # fmt: skip
        _diagonal(ax, pairs[["x", "y"]].to_numpy(dtype=float), log=down)
        ax.set_title(wrapped(f"{title or ''}\n{method}: {outcome}", 50))
        ax.set_xlabel(f"{wrapped(yardstick, 40)}\n{what}")
        better = f"{'below' if down else 'above'} the line is better"
        ax.set_ylabel(f"{wrapped(method, 34)}\n{what};\n{better}")
        bar: Any = ax.figure
        bar.colorbar(points, ax=ax, shrink=0.8, pad=0.03, label="share of spots detected")
        finish([ax], show, save)
    return ax


def method_intervals(
    summary: pd.DataFrame,
    metric: str,
    scores: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw the score of every method with its 95 % interval, and the slides behind it.

    Models are in color, baselines dark gray, controls light gray. An error that is far from all
    baselines is an arrow at the edge, so that the others can be told apart.

    Parameters
    ----------
    summary
        A row per method, drawn in this order: method, kind, `metric`, and where known its ``_low``
        and ``_high``, n_slides, n_patients, unit.
    metric
        Column to draw.
    scores
        A row per slide (and seed) × method: faint dots, a slide each, averaged over seeds.
    title
        Above the picture.
    palette
        Model → color.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes.

    Raises
    ------
    InputError
        `metric` is not in the table.
    """
    summary = _with(summary, metric).reset_index(drop=True)
    methods = [str(name) for name in summary["method"]]
    shades = _shades(summary, palette)
    dots = _per_slide(scores, metric)
    bounds = [summary.get(f"{metric}_{end}", summary[metric]) for end in ("low", "high")]
    ends = np.column_stack([pd.to_numeric(summary[metric]), *map(pd.to_numeric, bounds)])
    values = [np.append(row, dots.get(name, [])) for name, row in zip(methods, ends, strict=True)]
    limits, far = _limits(summary["kind"], values, metric in SMALLER_IS_BETTER)
    with journal():
        labels, over = _labels(summary)
        if ax is None:
            width = 2.7 + 0.045 * max((len(w) for s in labels for w in s.split("\n")), default=0)
            _, ax = plt.subplots(figsize=(width, 0.9 + 0.24 * len(methods)), layout="constrained")
        for i, row in enumerate(ends):
            style = {"color": shades[i], "marker": _MARKERS.get(summary["kind"][i], "o")}
            if far[i]:
                style["marker"] = ">"
                row = np.array([limits[1], np.nan, np.nan])
            _draw_row(ax, i, row, np.empty(0) if far[i] else dots.get(methods[i]), style)
            number = "" if np.isnan(ends[i, 0]) else f"{ends[i, 0]:.3f}"
            ax.text(1.03, i, number, transform=ax.get_yaxis_transform(), va="center", fontsize=6)
        ax.set(xlim=limits, ylim=(len(methods) - 0.4, -0.6))
        ax.set_yticks(range(len(methods)), labels)
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=5)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="y", color="#EEEEEE", lw=0.5)
        ax.set_axisbelow(True)
        slides_too = "; dots: slides" if dots else ""
        edge = "; arrow: beyond the axis" if any(far) else ""
        ax.set_xlabel(f"{_direction(metric)}\n{wrapped(over + slides_too + edge, 50)}")
        ax.set_title(wrapped(title or "", 60))
        finish([ax], show, save)
    return ax


def calibration(
    table: pd.DataFrame,
    methods: Sequence[str],
    *,
    task: str | None = None,
    title: str | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw what was hidden against what was predicted, in bins of the prediction.

    Parameters
    ----------
    table
        Table ``recovery_calibration`` or ``imputation_calibration`` of a result: n, predicted,
        observed, task, method. Bins of fewer than 100 entries are left out.
    methods
        What to draw.
    task
        Which task, where the table holds several.
    title
        Above the picture.
    palette
        Method → color.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes.

    Raises
    ------
    InputError
        The table lacks the task or a method.
    """
    table = only(table, task=task)
    bins = {name: only(table, method=name) for name in methods}
    bins = {name: own[own["n"] >= _LEAST_ENTRIES] for name, own in bins.items()}
    shades = dict(zip(methods, colors(len(methods)), strict=True)) | dict(palette or {})
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 3.2), layout="constrained")
        for i, (name, own) in enumerate(bins.items()):
            ax.plot(own["predicted"], own["observed"], marker="os^Dv"[i % 5], ms=2.5, lw=0.9,
                    color=shades[name], label=wrapped(name, 40))  # fmt: skip
        drawn = [own[["predicted", "observed"]].to_numpy(dtype=float) for own in bins.values()]
        _diagonal(ax, np.concatenate([*drawn, np.empty((0, 2))]))
        ax.set_xlabel("predicted (log1p counts)")
        ax.set_ylabel("observed, mean of a bin (log1p counts)")
        ax.set_title(wrapped(title or "", 50))
        ax.spines[["top", "right"]].set_visible(False)
        if bins:
            ax.legend(loc="upper left", frameon=False)
        finish([ax], show, save)
    return ax


def wrapped(text: str, width: int) -> str:
    """Break a name into lines; what could be read as a formula is not."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, width)]
    return "\n".join(lines).replace("$", r"\$")


def _with(table: pd.DataFrame, column: str) -> pd.DataFrame:
    if column not in table:
        raise InputError(f"{column!r}: no such column; there is {few(table.columns, 20)}")
    return table


def only(table: pd.DataFrame, **chosen: str | None) -> pd.DataFrame:
    """Keep the rows that are asked for; where nothing is asked for there may be one choice only."""
    for column, value in chosen.items():
        there: list[str] = list(table[column].unique()) if column in table else []
        if value is None and len(there) > 1:
            raise InputError(f"there are several to draw; name a {column}: {few(there, 10)}")
        if value is not None:
            if value not in there:
                raise InputError(f"{column} {value!r}: not in the table; there is {few(there, 10)}")
            table = table[table[column] == value]
    return table


def _shades(summary: pd.DataFrame, palette: Mapping[str, str] | None) -> list[str]:
    models = list(dict.fromkeys(summary.loc[summary["kind"] == "model", "method"]))
    own = dict(zip(models, colors(len(models)), strict=True)) | dict(palette or {})
    pairs = zip(summary["method"], summary["kind"], strict=True)
    return [_GRAYS.get(kind) or own[name] for name, kind in pairs]


def _per_slide(scores: pd.DataFrame | None, metric: str) -> dict[Hashable, Floats]:
    """Get the score of every slide, seeds averaged, by method."""
    if scores is None or metric not in scores:
        return {}
    means = scores.groupby(["method", "slide"], sort=False)[metric].mean().dropna()
    return {name: own.to_numpy(dtype=float) for name, own in means.groupby(level=0, sort=False)}


def _draw_row(ax: Axes, i: int, row: Floats, slides: Floats | None, style: dict[str, str]) -> None:
    mean, low, high = row
    marked: dict[str, Any] = {**style, "ls": "", "mew": 0, "clip_on": False}
    if slides is not None:
        ax.plot(slides, np.full(len(slides), i + 0.3), **marked | {"marker": "o"}, ms=2, alpha=0.45)
    ax.plot([low, high], [i, i], "-", color=style["color"], solid_capstyle="butt")
    ax.plot(mean, i, **marked, ms=4)


def _limits(
    kinds: "pd.Series[str]", values: list[Floats], clip: bool
) -> tuple[tuple[float, float], list[bool]]:
    """Find the range to show; and which methods, with errors far above all baselines, lie off it.

    `values` are mean, ends of the interval and slides of each method.
    """
    baselines = [own for own, kind in zip(values, kinds, strict=True) if kind == "baseline"]
    known = _finite(baselines)
    far = [False] * len(values)
    if clip and len(baselines) > 1 and known.size and np.ptp(known) > 0:
        far = [bool(own[0] > known.max() + np.ptp(known)) for own in values]
    shown = _finite([own for own, off in zip(values, far, strict=True) if not off])
    return _widened(shown, 0.06), far


def _finite(parts: Sequence[Floats]) -> Floats:
    joined = np.concatenate([*parts, np.empty(0)])
    known: Floats = joined[np.isfinite(joined)]
    return known


def _widened(values: Floats, by: float) -> tuple[float, float]:
    """Get a range around values, also where they are all the same or there are none."""
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = by * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _labels(summary: pd.DataFrame) -> tuple[list[str], str]:
    """Label the rows, with n where it differs, and say what the interval is over."""
    units = summary.get("unit", pd.Series("patient", index=summary.index)).fillna("slide")
    names = [wrapped(str(name), 30) for name in summary["method"]]
    if not {"n_slides", "n_patients"} <= set(summary):
        return names, "mean and 95 % interval"
    n = [summary[f"n_{unit}s"][i] for i, unit in enumerate(units)]
    if len({*zip(n, units, strict=True)}) == 1:
        plural = "s" if n[0] != 1 else ""
        return names, f"mean and 95 % interval, {n[0]} {units[0]}{plural}"
    parts = zip(names, n, units, strict=True)
    names = [f"{name} ({k} {unit}{'s' if k != 1 else ''})" for name, k, unit in parts]
    return names, "mean and 95 % interval"


def _direction(metric: str) -> str:
    what = _WHAT.get(metric, metric.replace("_", " "))
    return (
        f"← {what}, less is better" if metric in SMALLER_IS_BETTER else f"{what} (more is better) →"
    )


def _diagonal(ax: Axes, points: Floats, *, log: bool = False) -> None:
    """Give both axes the same range, and draw where they are equal."""
    known = _finite([points.ravel()])
    if log and known.size and known.min() > 0 and known.max() > 10 * known.min():
        ends = 10 ** np.array(_widened(np.log10(known), 0.05))
        ax.set(xscale="log", yscale="log")
        fine = known.max() < 100 * known.min()
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    else:
        ends = np.array(_widened(known, 0.05))
    ax.plot(ends, ends, color="#888888", lw=0.7, ls="--", zorder=0)
    ax.set(xlim=ends, ylim=ends)
    ax.set_aspect("equal")
