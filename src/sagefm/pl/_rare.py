"""Plot rare populations on the tissue, and their enriched genes."""

from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import RARE
from sagefm._uns import provenance
from sagefm.pl._canvas import Canvas, one_canvas
from sagefm.pl._maps import TissueMap, draw_maps
from sagefm.pl._marks import disks
from sagefm.pl._scales import numbers
from sagefm.pl._style import COLUMN, finish, journal, wrapped

if TYPE_CHECKING:
    from anndata import AnnData

_GENES = 8
"""Genes of each population."""
_POPULATIONS = 3
"""Populations whose genes are drawn."""
_ISOLATED = "-"
_LISTED = "listed"
_GRAY = "#888888"


def rare(
    slide: "AnnData", *, show: bool | None = None, save: str | Path | None = None
) -> list[Axes]:
    """Plot the rare score on the tissue with rings around listed spots, and their genes.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.tl.rare`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The map, and the Axes of the genes: for each of the three largest populations, or for all
    listed spots where there is none, the 8 genes with the smallest p and their fold changes
    from the other spots (bars) and from the neighbors (dots). Rings have the color of the
    population; those of spots in no population are gray.

    Raises
    ------
    InputError
        No such result, or the object holds several slides.
    """
    made = provenance(
        slide, "rare", key=str, spots=pd.DataFrame, genes=pd.DataFrame, n_beyond_noise=Integral
    )
    if not made or made["key"] not in slide.obs:
        raise InputError(f"obs[{RARE!r}]: is missing; run sagefm.tl.rare first")
    canvas = one_canvas(slide)
    listed, genes = made["spots"], made["genes"]
    listed = listed[listed.index.isin(slide.obs_names)]
    kinds = sorted(set(made["spots"]["population"]) - {_ISOLATED}, key=int)
    shades = dict(zip(kinds, colors(len(kinds) + 1)[1:], strict=True)) | {_ISOLATED: _GRAY}
    populations = kinds[:_POPULATIONS] or [_LISTED]
    with journal():
        rows = 0.6 + 0.12 * _GENES * len(populations)
        _, (top, below) = plt.subplots(
            2, 1, figsize=(COLUMN, 2.6 + rows), height_ratios=(2.6, rows),
            layout="constrained",
        )  # fmt: skip
        _map(canvas, slide.obs[made["key"]].astype(float), listed, shades, top)
        top.set_title(f"{len(listed):,} spots listed, {made['n_beyond_noise']:,} beyond noise")
        _bars(genes, populations, shades, below)
        finish([top, below], show, save)
    return [top, below]


def _map(
    canvas: Canvas,
    score: "pd.Series[float]",
    listed: pd.DataFrame,
    shades: dict[str, str],
    panel: Axes,
) -> None:
    """Color spots by score, up to the 99.5th percentile, with rings around listed spots."""
    high = max(float(np.nanpercentile(score, 99.5)), 1.0) if score.notna().any() else 1.0
    scale = numbers([score], low=-2, high=high, cmap="Greys", label="rare score")
    draw_maps([[TissueMap(canvas, score, scale)]], ax=panel)
    rows = canvas.slide.obs_names.get_indexer(listed.index)
    rings = disks(panel, canvas.points[rows], 1.35 * canvas.pitch)
    edges = [shades[kind] for kind in listed["population"]]
    rings.set(facecolors="none", edgecolors=edges, linewidths=0.9)
    counts = listed["population"].value_counts()
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, markerfacecolor="none",
               markeredgecolor=shade,
               label=f"in none: {counts[kind]}" if kind == _ISOLATED else f"{kind}: {counts[kind]}")
        for kind, shade in shades.items() if kind in counts
    ]  # fmt: skip
    panel.legend(
        handles=handles[:7], title="population: spots", loc="upper center", frameon=False,
        bbox_to_anchor=(0.5, -0.06), ncols=4, handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip


def _bars(genes: pd.DataFrame, populations: list[str], shades: dict[str, str], panel: Axes) -> None:
    """Draw fold changes of the genes, one population below the other."""
    at, names, middles = 0.0, [], []
    for kind in populations:
        table = genes[genes["population"] == kind].head(_GENES)
        places = at + np.arange(len(table))
        panel.barh(places, table["log2_fold"], 0.75, color=shades.get(kind, _GRAY))
        panel.plot(table["log2_fold_neighbors"], places, "o", color="black", markersize=2.5)
        names += list(zip(places, table["gene"], strict=True))
        middles.append((places.mean() if len(table) else at, kind))
        at += len(table) + 0.8
    panel.set_yticks(
        [place for place, _ in names], [wrapped(str(gene), 20, 1) for _, gene in names]
    )
    for middle, kind in middles:
        panel.annotate(
            "listed spots" if kind == _LISTED else f"population {kind}", (1.0, middle),
            xytext=(4, 0), xycoords=panel.get_yaxis_transform(), textcoords="offset points",
            rotation=270, va="center",
        )  # fmt: skip
    panel.set(
        ylim=(at, -0.9), xlabel="log2 fold change from other spots (bar)\nand from neighbors (dot)"
    )
    panel.axvline(0, color="black", linewidth=0.6)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
