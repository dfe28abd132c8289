"""Lay out maps of spots in a figure, with one color bar or legend for maps of one scale."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.ticker import MaxNLocator

from sagefm.pl._canvas import Canvas
from sagefm.pl._marks import (
    Look,
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    legend_entries,
    legend_size,
)
from sagefm.pl._scales import Classes, Numbers
from sagefm.pl._style import COLUMN, SMALL, wrapped

_ACROSS = 4
"""Maps in a row that have room in a column of a journal."""
_BESIDE = 1.45
"""Largest width of a legend beside maps, in inches."""
_LINE = 0.13
"""Height of a line of text, in inches."""


@dataclass(frozen=True, eq=False)
class TissueMap:
    """One panel: spots of a section, colored by values."""

    canvas: Canvas
    spots: "pd.Series[Any]"
    scale: Numbers | Classes
    title: str = ""
    row: str = ""
    """What the row of the panel is, to its left."""


Grid = Sequence[Sequence[TissueMap | str | None]]
"""Rows of panels: maps, words in place of one, or nothing."""
Drawn = list[tuple[TissueMap, Axes, EllipseCollection]]


def in_rows(maps: Sequence[TissueMap], n_columns: int) -> list[list[TissueMap | None]]:
    """Break a list of maps into rows."""
    spare: list[TissueMap | None] = [None] * (-len(maps) % n_columns)
    filled = [*maps, *spare]
    return [filled[i : i + n_columns] for i in range(0, len(filled), n_columns)]


def column_of(
    canvases: Sequence[Canvas],
    spots: "Sequence[pd.Series[Any]]",
    scale: Numbers | Classes,
    title: str,
) -> list[TissueMap]:
    """Make the maps of one color, one for each section; the first has the title."""
    rows = [canvas.name if len(canvases) > 1 else "" for canvas in canvases]
    titles = [title, *[""] * (len(canvases) - 1)]
    fields = zip(canvases, spots, titles, rows, strict=True)
    return [TissueMap(canvas, one, scale, heading, row) for canvas, one, heading, row in fields]


def arrange(columns: Sequence[Sequence[TissueMap]], n_columns: int | None = None) -> Grid:
    """Lay out sections by colors, or one map after the other."""
    if len(columns) > 1 and len(columns[0]) > 1:
        rows = zip(*columns, strict=True)
        return [[row[0], *(replace(one, row="") for one in row[1:])] for row in rows]
    maps = [one for column in columns for one in column]
    usual = len(maps) if len(maps) < 4 else 2 if len(maps) == 4 else 3
    return in_rows(maps, min(n_columns or usual, len(maps)))


def draw_maps(
    grid: Grid,
    look: Look | None = None,
    *,
    ax: Axes | None = None,
    scale_bar: bool = True,
    caption: str = "",
) -> list[Axes]:
    """Draw rows of maps, and return the Axes row by row; the caption is below all of them."""
    look = look or Look()
    axes = [[ax]] if ax is not None else _new_axes(grid)
    n_columns = len(grid[0])
    measured: set[int] = set()
    drawn: Drawn = []
    for row, panels in zip(grid, axes, strict=True):
        for one, panel in zip(row, panels, strict=True):
            if not isinstance(one, TissueMap):
                panel.set_axis_off()
                panel.text(0.5, 0.5, wrapped(one or "", 20), ha="center", color="0.4",
                           transform=panel.transAxes)  # fmt: skip
                continue
            draw_tissue(panel, one.canvas, look)
            spots = draw_spots(panel, one.canvas, one.spots, one.scale, look)
            drawn.append((one, panel, spots))
            if scale_bar and id(one.canvas) not in measured:
                draw_scale_bar(panel, one.canvas)
                measured.add(id(one.canvas))
            panel.set_title(_heading(one, n_columns))
            if one.row:
                panel.set_ylabel(wrapped(one.row, 26, 2))
    by_scale: dict[int, Drawn] = {}
    for entry in drawn:
        by_scale.setdefault(id(entry[0].scale), []).append(entry)
    for group in by_scale.values():
        _explain(group, n_columns, alone=len(by_scale) == 1)
    if ax is None:
        _fit_height(drawn[0][1].figure, caption)
    return [panel for _, panel, _ in drawn]


def _fit_height(figure: Any, caption: str) -> None:
    """Take away the height that the maps leave, and write the caption right below them."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    needed = figure.get_tightbbox().height + 0.06
    figure.set_size_inches(width, min(height, needed) + (0.2 if caption else 0))
    if caption:
        figure.supxlabel(caption, fontsize=SMALL)


def _heading(one: TissueMap, n_columns: int) -> str:
    """Break each line of a title to the width of the map."""
    each = COLUMN * max(n_columns / _ACROSS, 1) / n_columns
    letters = int(min(each, 2.6) / 0.057)
    return "\n".join(wrapped(line, letters, 2) for line in one.title.split("\n"))


def _new_axes(grid: Grid) -> list[list[Axes]]:
    """Create a figure as wide as a column of a journal, and as high as its maps."""
    n_columns = len(grid[0])
    width = COLUMN * max(n_columns / _ACROSS, 1)
    scales = {id(one.scale): one.scale for row in grid for one in row if isinstance(one, TissueMap)}
    beside = _room_beside(scales, n_columns)
    each = (width - beside) / n_columns - 0.04
    if n_columns == 1:
        each = min(each, 2.4)
    heights = []
    for row in grid:
        maps = [one for one in row if isinstance(one, TissueMap)]
        lines = max((_heading(one, n_columns).count("\n") + 1 for one in maps), default=1)
        high = each * max((one.canvas.aspect for one in maps), default=0.3)
        heights.append(high + _LINE * lines + 0.2 + (0.3 if n_columns > 1 else 0))
    size = width, sum(heights) + _room_below(scales, n_columns, width)
    _, axes = plt.subplots(len(grid), n_columns, figsize=size, squeeze=False, layout="compressed")
    return [list(row) for row in axes]


def _room_below(scales: dict[int, Numbers | Classes], n_columns: int, width: float) -> float:
    """Estimate the height of the legends below maps, in inches."""
    rooms = []
    for scale in scales.values():
        if isinstance(scale, Classes):
            entries = legend_entries(scale.shades)
            fits = legend_size(entries)[1] <= _BESIDE and (
                n_columns == 1 or (n_columns == 2 and len(scales) == 1)
            )
            columns, _ = legend_size(entries, width / (1 if len(scales) == 1 else n_columns))
            lines = sum(str(entry.get_label()).count("\n") + 1 for entry in entries)
            rooms.append(0.0 if fits else 0.1 + 1.1 * _LINE * lines / columns)
    return sum(rooms)


def _room_beside(scales: dict[int, Numbers | Classes], n_columns: int) -> float:
    """Estimate the width of legends and color bars beside the maps, in inches."""
    if n_columns > 1 and len(scales) > 1:
        return 0.0
    rooms = []
    for scale in scales.values():
        if isinstance(scale, Numbers):
            rooms.append(0.5)
        else:
            width = legend_size(legend_entries(scale.shades))[1]
            rooms.append(width if width <= _BESIDE and n_columns < 3 else 0.0)
    return max(rooms)


def _explain(group: Drawn, n_columns: int, *, alone: bool) -> None:
    """Add the color bar or the legend of the maps of one scale."""
    scale = group[0][0].scale
    panels = [panel for _, panel, _ in group]
    across = len({round(panel.get_position().x0, 3) for panel in panels}) > 1
    beside = n_columns == 1 or alone or across
    if isinstance(scale, Numbers):
        _add_bar(group, scale, n_columns, beside=beside)
        return
    entries = legend_entries(scale.shades)
    columns, width = legend_size(entries)
    style: dict[str, Any] = {
        "handles": entries, "frameon": False, "handletextpad": 0.1, "labelspacing": 0.4,
        "columnspacing": 0.8, "title": wrapped(scale.label, 24, 2) or None,
    }  # fmt: skip
    figure: Any = panels[0].figure
    fits = width <= _BESIDE and n_columns < 3
    if not (fits and beside):
        columns, _ = legend_size(entries, figure.get_size_inches()[0] / (1 if alone else n_columns))
    if len(panels) > 1 and alone:
        place = "outside right center" if fits else "outside lower center"
        figure.legend(loc=place, ncols=columns, **style)
    elif beside and fits:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, **style)
    else:
        panels[-1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=columns, **style)


def _add_bar(group: Drawn, scale: Numbers, n_columns: int, *, beside: bool) -> None:
    maps, panels, spots = zip(*group, strict=True)
    figure: Any = panels[0].figure
    style: dict[str, Any] = {"extend": scale.beyond, "extendfrac": 0.04}
    if beside:
        rows = len({round(panel.get_position().y0, 3) for panel in panels})
        bar = figure.colorbar(
            spots[-1], ax=list(panels), shrink=0.7 / rows**0.5, pad=0.03, aspect=16, **style
        )
    else:  # right below its maps, whatever the other columns have below theirs
        high = figure.get_size_inches()[0] / n_columns * maps[-1].canvas.aspect
        low = -(0.23 if maps[-1].title or maps[-1].row else 0.1) / high
        cax = panels[-1].inset_axes((0.1, low, 0.8, 0.05 / high))
        bar = figure.colorbar(spots[-1], cax=cax, orientation="horizontal", **style)
    bar.solids.set_alpha(1)
    bar.locator = MaxNLocator(4 if beside else 3, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.ax.tick_params(length=2, pad=1.5)
    bar.outline.set_linewidth(0.4)
    if scale.label:
        letters = 26 if beside else int(figure.get_size_inches()[0] / n_columns / 0.047)
        bar.set_label(wrapped(scale.label, letters), fontsize=SMALL, labelpad=2)
