"""Plot scores, genes and calibration of methods."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Floats
from sagefm.pl._style import COLUMN, finish, journal, wrapped

SMALLER_IS_BETTER = frozenset({"mse", "excess", "share_left", "deviance", "ece", "davies_bouldin"})
_METRICS = {
    "mse": "mean squared error (log1p counts)",
    "excess": "mean squared error above counting noise",
    "share_left": "error above counting noise (best training-free method: 1)",
    "deviance": "Poisson deviance",
    "ece": "expected calibration error",
    "r_within": "correlation within slides",
    "r_pooled": "correlation, all slides pooled",
    "r_depth_removed": "correlation, library size removed",
    "ari": "adjusted Rand index",
    "nmi": "normalized mutual information",
    "auroc": "area under the ROC curve",
    "macro_f1": "macro F1",
}
_GRAYS = {"baseline": "#444444", "control": "#AAAAAA"}
_MARKERS = {"model": "o", "baseline": "s", "control": "D"}
_MIN_ENTRIES = 100
"""Bins of the calibration with fewer masked entries are not drawn."""


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
    """Compare how well two methods predict each gene, as a scatter plot.

    Parameters
    ----------
    genes
        Table ``recovery_genes`` or ``imputation_genes`` of a result: gene, method, task, detected
        (fraction of spots) and `value`.
    method, yardstick
        The methods to compare.
    value
        Column to compare, such as ``r_within`` or ``mse``.
    task
        Which task, if the table holds several.
    title
        Title, before the fraction of genes for which the method is better.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. Genes without a value for both are left out; in the title, ties count half.

    Raises
    ------
    InputError
        The table lacks the column, task or one of the methods.
    """
    genes = only(_with(genes, value), task=task)
    y, x = (only(genes, method=name).set_index("gene") for name in (method, yardstick))
    pairs = pd.DataFrame({"x": x[value], "y": y[value], "detected": y["detected"]})
    pairs = pairs.dropna(subset=["x", "y"])
    down = value in SMALLER_IS_BETTER
    gain = (pairs["y"] - pairs["x"]) * (-1 if down else 1)
    fraction = float((gain > 0).mean() + (gain == 0).mean() / 2)
    outcome = (
        f"better for {100 * fraction:.0f} % of {len(pairs):,} genes" if len(pairs) else "no genes"
    )
    label = _METRICS.get(value, value)
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.9), layout="constrained")
        points = ax.scatter(
            pairs["x"], pairs["y"], c=pairs["detected"], cmap="cividis", vmin=0, vmax=1, s=5,
            alpha=0.8, linewidths=0, rasterized=len(pairs) > 2000,
        )  # fmt: skip
        _diagonal(ax, pairs[["x", "y"]].to_numpy(dtype=float), log=down)
        ax.set_title(wrapped(f"{title or ''}\n{method}: {outcome}", 50))
        ax.set_xlabel(f"{wrapped(yardstick, 40, 2)}\n{label}")
        better = f"{'below' if down else 'above'} the line is better"
        ax.set_ylabel(f"{wrapped(method, 34, 2)}\n{label};\n{better}")
        bar: Any = ax.figure
        bar.colorbar(points, ax=ax, shrink=0.8, pad=0.03, label="fraction of spots detected")
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
    """Plot the score of every method with its 95 % interval, and the scores of the slides.

    Models are in color, baselines dark gray, controls light gray. An error that is much larger than
    those of all baselines is an arrow at the edge, so that the others can be distinguished.

    Parameters
    ----------
    summary
        A row per method, in the order of the plot: method, kind, `metric`, and where available its
        ``_low`` and ``_high``, n_slides, n_patients, unit.
    metric
        Column to plot.
    scores
        A row per slide (and seed) × method: faint dots, one per slide, averaged over seeds.
    title
        Title.
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
            width = 2.25 + 0.045 * max((len(w) for s in labels for w in s.split("\n")), default=0)
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
        ax.set_title(wrapped(title or "", 60, 3))
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
    """Plot masked counts against predictions, in bins of the prediction.

    Parameters
    ----------
    table
        Table ``recovery_calibration`` or ``imputation_calibration`` of a result: n, predicted,
        observed, task, method. Bins of fewer than 100 entries are left out.
    methods
        What to plot.
    task
        Which task, if the table holds several.
    title
        Title.
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
    bins = {name: rows[rows["n"] >= _MIN_ENTRIES] for name, rows in bins.items()}
    shades = dict(zip(methods, colors(len(methods)), strict=True)) | dict(palette or {})
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 3.2), layout="constrained")
        for i, (name, rows) in enumerate(bins.items()):
            ax.plot(rows["predicted"], rows["observed"], marker="os^Dv"[i % 5], ms=2.5, lw=0.9,
                    color=shades[name], label=wrapped(name, 40, 2))  # fmt: skip
        points = [rows[["predicted", "observed"]].to_numpy(dtype=float) for rows in bins.values()]
        _diagonal(ax, np.concatenate([*points, np.empty((0, 2))]))
        ax.set_xlabel("predicted (log1p counts)")
        ax.set_ylabel("observed, mean of a bin (log1p counts)")
        ax.set_title(wrapped(title or "", 50, 3))
        ax.spines[["top", "right"]].set_visible(False)
        if bins:
            ax.legend(loc="upper left", frameon=False)
        finish([ax], show, save)
    return ax


def _with(table: pd.DataFrame, column: str) -> pd.DataFrame:
    if column not in table:
        raise InputError(f"{column!r}: no such column; the table has {few(table.columns, 20)}")
    return table


def only(table: pd.DataFrame, **chosen: str | None) -> pd.DataFrame:
    """Select rows by the values of columns; without a value, the column may have only one."""
    for column, value in chosen.items():
        values: list[str] = list(table[column].unique()) if column in table else []
        if value is None and len(values) > 1:
            raise InputError(f"there are several to draw; name a {column}: {few(values, 10)}")
        if value is not None:
            if value not in values:
                raise InputError(
                    f"{column} {value!r}: not in the table, which has {few(values, 10)}"
                )
            table = table[table[column] == value]
    return table


def _shades(summary: pd.DataFrame, palette: Mapping[str, str] | None) -> list[str]:
    models = list(dict.fromkeys(summary.loc[summary["kind"] == "model", "method"]))
    of_models = dict(zip(models, colors(len(models)), strict=True)) | dict(palette or {})
    pairs = zip(summary["method"], summary["kind"], strict=True)
    return [_GRAYS.get(kind) or of_models[name] for name, kind in pairs]


def _per_slide(scores: pd.DataFrame | None, metric: str) -> dict[Hashable, Floats]:
    """Average the scores of each slide over seeds, by method."""
    if scores is None or metric not in scores:
        return {}
    means = scores.groupby(["method", "slide"], sort=False)[metric].mean().dropna()
    return {name: rows.to_numpy(dtype=float) for name, rows in means.groupby(level=0, sort=False)}


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
    """Get the range of the axis, and whether the error of a method is too large for it.

    `values` are mean, ends of the interval and slides of each method.
    """
    baselines = [row for row, kind in zip(values, kinds, strict=True) if kind == "baseline"]
    finite = _finite(baselines)
    far = [False] * len(values)
    if clip and len(baselines) > 1 and finite.size and np.ptp(finite) > 0:
        far = [bool(row[0] > finite.max() + np.ptp(finite)) for row in values]
    inside = _finite([row for row, beyond in zip(values, far, strict=True) if not beyond])
    return _widened(inside, 0.06), far


def _finite(arrays: Sequence[Floats]) -> Floats:
    values = np.concatenate([*arrays, np.empty(0)])
    finite: Floats = values[np.isfinite(values)]
    return finite


def _widened(values: Floats, by: float) -> tuple[float, float]:
    """Get a range around values, even if they are all equal or there are none."""
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = by * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _labels(summary: pd.DataFrame) -> tuple[list[str], str]:
    """Get the labels of the rows, with n where it differs, and a description of the interval."""
    units = summary.get("unit", pd.Series("patient", index=summary.index)).fillna("slide")
    names = [wrapped(str(name), 30, 2) for name in summary["method"]]
    if not {"n_slides", "n_patients"} <= set(summary):
        return names, "mean and 95 % interval"
    n = [summary[f"n_{unit}s"][i] for i, unit in enumerate(units)]
    if len({*zip(n, units, strict=True)}) == 1:
        plural = "s" if n[0] != 1 else ""
        return names, f"mean and 95 % interval, {n[0]} {units[0]}{plural}"
    rows = zip(names, n, units, strict=True)
    names = [f"{name} ({k} {unit}{'s' if k != 1 else ''})" for name, k, unit in rows]
    return names, "mean and 95 % interval"


def _direction(metric: str) -> str:
    label = _METRICS.get(metric, metric.replace("_", " "))
    if metric in SMALLER_IS_BETTER:
        return f"← {label}, less is better"
    return f"{label} (more is better) →"


def _diagonal(ax: Axes, points: Floats, *, log: bool = False) -> None:
    """Give both axes the same range, and draw the diagonal."""
    finite = _finite([points.ravel()])
    if log and finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        ends = 10 ** np.array(_widened(np.log10(finite), 0.05))
        ax.set(xscale="log", yscale="log")
        fine = finite.max() < 100 * finite.min()
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    else:
        ends = np.array(_widened(finite, 0.05))
    ax.plot(ends, ends, color="#888888", lw=0.7, ls="--", zorder=0)
    ax.set(xlim=ends, ylim=ends)
    ax.set_aspect("equal")
