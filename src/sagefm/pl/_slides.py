"""Plot several slides side by side, and the stability of numbers of domains."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import DOMAIN, PROVENANCE
from sagefm.pl._spatial import spatial
from sagefm.pl._style import COLUMN, finish, journal

if TYPE_CHECKING:
    from anndata import AnnData

_PER_ROW = 4
_SIDE = 2.0


def slides(
    slides: "Mapping[str, AnnData]",
    color: str = DOMAIN,
    *,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Draw several slides in the same colors, with one legend.

    Parameters
    ----------
    slides
        Name → slide.
    color
        A categorical column of ``obs`` of all slides.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes, one for each slide.

    Raises
    ------
    InputError
        There is no slide, a slide lacks the column, or as for :func:`sagefm.pl.spatial`.
    """
    if not slides:
        raise InputError("slides: there are none; give one at least")
    for name, slide in slides.items():
        if color not in slide.obs:
            raise InputError(f"{name}: has no obs[{color!r}]; choose another color")
    columns = {name: slide.obs[color].astype("category") for name, slide in slides.items()}
    classes = list(dict.fromkeys(str(c) for one in columns.values() for c in one.cat.categories))
    shades = dict(zip(classes, colors(len(classes)), strict=True))
    n_columns = min(len(slides), _PER_ROW)
    n_rows = -(-len(slides) // n_columns)
    with journal():
        figure, grid = plt.subplots(
            n_rows, n_columns, squeeze=False, layout="compressed",
            figsize=(max(COLUMN, n_columns * _SIDE + 1), n_rows * (_SIDE + 0.3)),
        )  # fmt: skip
        axes = list(grid.ravel())
        for panel, (name, slide) in zip(axes, slides.items(), strict=False):
            palette = [shades[str(c)] for c in columns[name].cat.categories]
            view = slide[:]  # a view, so that no colors are stored in the slide
            spatial(view, color, title=name, palette=palette, ax=panel, show=False)
            panel.get_legend().remove()
        for panel in axes[len(slides) :]:
            panel.set_visible(False)
        handles = [
            Line2D([], [], marker="o", ls="", ms=4, color=shade, label=name)
            for name, shade in shades.items()
        ]
        figure.legend(handles=handles, loc="outside right center", frameon=False, title=color)
        finish(axes[: len(slides)], show, save)
    return axes[: len(slides)]


def stability(
    slide: "AnnData",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Plot how well clusterings agree for each number of domains.

    Parameters
    ----------
    slide
        After :func:`sagefm.tl.domains` has chosen the number.
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
        The number of domains of the slide was given, and not chosen.
    """
    settings = slide.uns.get(PROVENANCE, {}).get("domains", {})
    table = settings.get("stability")
    if table is None or len(table) < 2:
        raise InputError(
            "the number of domains was not chosen; run sagefm.tl.domains without n_domains first"
        )
    chosen = int(settings["n_domains"])
    numbers = np.asarray(table["n_domains"])
    shades = colors(4)
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        lines = {"views": "views", "counts": "half of the counts, each view",
                 "consensus": "half of the counts, consensus"}  # fmt: skip
        for (name, label), shade in zip(lines.items(), shades[1:], strict=True):
            ax.plot(numbers, table[name], color=shade, lw=0.8, label=label)
        ax.plot(numbers, table["score"], color=shades[0], lw=1.6, marker="o", ms=3,
                label="mean, less the prior")  # fmt: skip
        ax.axvline(chosen, color="0.6", ls=":", zorder=0)
        ax.set(xlabel="number of domains", ylabel="agreement\n(adjusted Rand index)",
               title=f"{chosen} domains are chosen")  # fmt: skip
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.25), ncols=2, frameon=False)
        finish([ax], show, save)
    return ax
