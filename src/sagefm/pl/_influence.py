"""What raises and lowers a gene, and what it raises and lowers."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._text import few
from sagefm.pl._style import COLUMN, finish, journal, wrapped

_ROW = 0.13
"""Inches of height of a bar."""


def influence(
    edges: pd.DataFrame,
    gene: str,
    n: int = 15,
    *,
    value: str = "neighbors",
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Draw the strongest influences on a gene, and the strongest that it has.

    Parameters
    ----------
    edges
        A table of edges, from :func:`sagefm.tl.influence`, :func:`sagefm.tl.to_edges` or
        :func:`sagefm.tl.consensus_network` (with its interval for the value ``"mean"``).
    gene
        Which gene.
    n
        How many edges to draw in each direction.
    value
        Column to draw.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    Two Axes: the influences on the gene, and those that it has.

    Raises
    ------
    InputError
        The table lacks a column or has no edge of the gene.
    """
    missing = [name for name in ("source", "target", value) if name not in edges]
    if missing:
        raise InputError(f"{missing[0]!r}: no such column; there is {few(edges.columns, 20)}")
    if n < 1:
        raise InputError(f"n={n}: give a whole number from 1 on")
    shown = {
        other: _strongest(edges[edges[own] == gene], value, n)
        for own, other in (("target", "source"), ("source", "target"))
    }
    if not any(map(len, shown.values())):
        raise InputError(f"{gene}: has no edge in this table; name a gene of source or target")
    longest = max(map(len, shown.values()))
    with journal():
        height = 0.95 + _ROW * max(longest, 3)
        figure, grid = plt.subplots(1, 2, figsize=(COLUMN, height), layout="constrained")
        axes = list(grid)
        short = gene if len(gene) <= 20 else f"{gene[:19]}…"
        titles = f"what raises or lowers {short}", f"what {short} raises or lowers"
        for panel, title, (other, table) in zip(axes, titles, shown.items(), strict=True):
            _draw_bars(panel, table, other, value, max(longest, 3))
            panel.set_title(wrapped(title, 24))
        figure.supxlabel(wrapped(_meaning(value), 60), fontsize=7)
        _add_legend(axes, value, pd.concat(shown.values()))
        finish(axes, show, save)
    return axes


def _strongest(edges: pd.DataFrame, value: str, n: int) -> pd.DataFrame:
    order = np.argsort(-edges[value].abs().to_numpy(), kind="stable")
    return edges.iloc[order[:n]]


def _meaning(value: str) -> str:
    """Say what the bars measure."""
    if value == "standardized":
        return "change of the prediction per change of the neighbors (standard deviations)"
    places = {"neighbors": "in all neighbors", "center": "in the center"}
    place = f" {places[value]}" if value in places else ""
    return f"change of the prediction per unit{place} (log1p counts per log1p count)"


def _draw_bars(panel: Axes, edges: pd.DataFrame, other: str, value: str, n_rows: int) -> None:
    """Draw an edge per row, the strongest on top."""
    raises, lowers = colors(6)[0], colors(6)[5]
    length = edges[value].to_numpy(dtype=float)
    rows = np.arange(len(edges))
    panel.barh(rows, length, color=np.where(length > 0, raises, lowers).tolist(), height=0.7)
    if _has_interval(edges, value):
        ends = edges[["low", "high"]].to_numpy(dtype=float).T
        panel.hlines(rows, *ends, color="#444444", lw=0.8)
    panel.axvline(0, color="black", lw=0.6)
    panel.set_yticks(rows, [wrapped(str(name), 16, 1) for name in edges[other]])
    panel.set_ylim(n_rows - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=3)
    panel.spines[["top", "right", "left"]].set_visible(False)
    if not len(edges):
        panel.text(0.5, 0.5, "no edge in the table", transform=panel.transAxes, ha="center")
        panel.set_axis_off()


def _has_interval(edges: pd.DataFrame, value: str) -> bool:
    return value == "mean" and {"low", "high"} <= set(edges)


def _add_legend(axes: list[Axes], value: str, edges: pd.DataFrame) -> None:
    """Explain the colors of both panels, above them."""
    handles = [
        Line2D([], [], marker="s", ls="", ms=4, color=shade, label=label)
        for shade, label in ((colors(6)[0], "raises"), (colors(6)[5], "lowers"))
    ]
    if _has_interval(edges, value):
        handles.append(Line2D([], [], color="#444444", lw=0.8, label="95 % interval over slides"))
    figure = axes[0].get_figure(root=True)
    if figure is not None:
        figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
