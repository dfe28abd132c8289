"""Pictures of perturbations: effects beside those of other genes, and where the tissue responds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from sagefm._errors import InputError
from sagefm._keys import RESPONSE
from sagefm._text import few
from sagefm.pl._spatial import spatial
from sagefm.pl._style import COLUMN, finish, journal
from sagefm.pp.counts import coordinates
from sagefm.tl.perturbation import top_pairs

if TYPE_CHECKING:
    from anndata import AnnData

_FOUND, _NOT_FOUND, _NULL = "#D55E00", "#444444", "#CCCCCC"
_NEEDED = ["ligand", "target", "effect", "null_low", "null_median", "null_high", "z", "p", "q"]


def perturbation(
    table: pd.DataFrame,
    n: int = 20,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw the effects that stand out the most, each beside those of genes like its ligand.

    Parameters
    ----------
    table
        Of :func:`sagefm.tl.perturb`.
    n
        How many pairs: those with the smallest q, then p, then the largest distance from the null.
    ax
        Axes to draw on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes. A dot per pair, in color where q < 0.05; its line is the interval over slides; the
    gray bar holds 95 % of the effects of matched genes on the same target, the tick their median.

    Raises
    ------
    InputError
        The table is empty or lacks a column, or `n` is out of its range.
    """
    if missing := [name for name in _NEEDED if name not in table]:
        raise InputError(f"{missing[0]!r}: no such column; give a table of sagefm.tl.perturb")
    if table.empty:
        raise InputError("the table of pairs is empty; there is nothing to draw")
    if n < 1:
        raise InputError(f"n={n}: give a whole number from 1 on")
    shown = top_pairs(table, n)
    rows = np.arange(len(shown))
    with journal():
        if ax is None:
            height = 1.0 + 0.17 * max(len(shown), 2)
            _, ax = plt.subplots(figsize=(COLUMN, height), layout="constrained")
        widths = shown["null_high"] - shown["null_low"]
        gray = "#888888"
        marks: list[Artist | BarContainer] = [
            ax.barh(rows, widths, 0.7, shown["null_low"], color=_NULL, label="matched genes, 95 %"),
            *ax.plot(shown["null_median"], rows, "|", color=gray, ms=6, label="their median"),
        ]
        if {"effect_low", "effect_high"} <= set(shown) and shown["effect_low"].notna().any():
            ends = shown["effect_low"], shown["effect_high"]
            marks.append(ax.hlines(rows, *ends, color=_NOT_FOUND, lw=1, label="95 % over slides"))
        sure = (shown["q"] < 0.05).to_numpy()
        for which, color, label in ((~sure, _NOT_FOUND, "q ≥ 0.05"), (sure, _FOUND, "q < 0.05")):
            if which.any():
                marks[:0] = ax.plot(
                    shown["effect"][which], rows[which], "o", color=color, ms=3.5, label=label
                )
        ax.axvline(0, color=gray, lw=0.6)
        names = [f"{a} → {b}" for a, b in zip(shown["ligand"], shown["target"], strict=True)]
        ax.set_yticks(rows, [name.replace("$", r"\$") for name in names])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.use_sticky_edges = False
        ax.locator_params(axis="x", nbins=5)
        ax.tick_params(labelsize=6)
        # Words end at the right border: to the left, below and above the names, there is room.
        ax.set_xlabel(
            "effect: predicted target, ligand at its highest\nminus at its lowest (log1p counts)",
            fontsize=7, loc="right", ma="left",
        )  # fmt: skip
        ax.legend(
            handles=marks, ncols=2, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.2,
        )  # fmt: skip
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        finish([ax], show, save)
    return ax


def response(
    slide: "AnnData",
    genes: str | Sequence[str],
    *,
    key: str = RESPONSE,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | list[Axes]:
    """Draw where on the tissue the prediction of genes changes when others do.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.tl.respond`.
    genes
        One of its genes, or several, one panel each.
    key
        Where in ``obsm`` it is.
    title
        Of the panel; the gene if not given.
    ax
        Axes to draw one panel on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes, or a list of them where `genes` is a list. Colors are even around 0.

    Raises
    ------
    InputError
        No such result or gene, or the object holds several slides.
    """
    if key not in slide.obsm:
        raise InputError(f"obsm[{key!r}]: is not there; run sagefm.tl.respond first")
    held = slide.obsm[key]
    names = [genes] if isinstance(genes, str) else list(genes)
    if missing := [name for name in names if name not in held]:
        raise InputError(f"{missing[0]}: obsm[{key!r}] has no such gene, but {few(held.columns)}")
    values = pd.DataFrame(held[names].to_numpy(), slide.obs_names, names)
    drawn = ad.AnnData(
        obs=slide.obs.assign(**values), uns=dict(slide.uns), obsm={"spatial": coordinates(slide)}
    )
    with journal():
        axes = spatial(drawn, names, title=[title] if title else None, cmap="RdBu_r", ax=ax,
                       show=False)  # fmt: skip
        panels = [axes] if isinstance(axes, Axes) else axes
        for panel, name in zip(panels, names, strict=True):
            most = float(values[name].abs().fillna(0.0).max()) or 1.0
            spots = panel.collections[-1]
            spots.set_clim(-most, most)
            if spots.colorbar is not None:
                spots.colorbar.set_label("change of predicted log1p counts", fontsize=6)
        finish(panels, show, save)
    return panels[0] if isinstance(genes, str) else panels
