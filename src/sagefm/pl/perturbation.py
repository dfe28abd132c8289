"""Pictures of perturbations: effects beside those of other genes, and where the tissue responds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import RESPONSE
from sagefm.pl._style import finish, journal
from sagefm.pl.spatial import spatial
from sagefm.pp.counts import coordinates, few

if TYPE_CHECKING:
    from anndata import AnnData

_FOUND, _NOT_FOUND, _NULL = "#D55E00", "#444444", "#CCCCCC"


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
        The table is empty.
    """
    if table.empty:
        raise InputError("the table of pairs is empty; there is nothing to draw")
    order = table.assign(size=-table["z"].abs()).sort_values(["q", "p", "size"], kind="stable")
    shown = order.head(n)
    rows = np.arange(len(shown))
    with journal():
        if ax is None:
            _, ax = plt.subplots(figsize=(3.4, 0.8 + 0.17 * len(shown)), layout="constrained")
        widths = shown["null_high"] - shown["null_low"]
        ax.barh(rows, widths, 0.7, shown["null_low"], color=_NULL, label="matched genes, 95 %")
        ax.plot(shown["null_median"], rows, "|", color="#888888", ms=6, label="their median")
        ax.hlines(rows, shown["effect_low"], shown["effect_high"], color="#888888", lw=1)
        sure = (shown["q"] < 0.05).to_numpy()
        for which, color, label in ((sure, _FOUND, "q < 0.05"), (~sure, _NOT_FOUND, "q ≥ 0.05")):
            if which.any():
                ax.plot(shown["effect"][which], rows[which], "o", color=color, ms=3.5, label=label)
        ax.axvline(0, color="#888888", lw=0.6)
        names = [f"{a} → {b}" for a, b in zip(shown["ligand"], shown["target"], strict=True)]
        ax.set_yticks(rows, names)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlabel(
            "effect: predicted target, ligand at its highest minus lowest\n(log1p counts)"
        )
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 1.6 / len(shown)), ncols=2,
                  frameon=False)  # fmt: skip
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
        No such result or gene.
    """
    if key not in slide.obsm:
        raise InputError(f"obsm[{key!r}]: is not there; run sagefm.tl.respond first")
    held = slide.obsm[key]
    names = [genes] if isinstance(genes, str) else list(genes)
    if missing := [name for name in names if name not in held]:
        raise InputError(f"{missing[0]}: obsm[{key!r}] has no such gene, but {few(held.columns)}")
    values = pd.DataFrame(held[names].to_numpy(), slide.obs_names, names)
    drawn = ad.AnnData(obs=values, uns=dict(slide.uns), obsm={"spatial": coordinates(slide)})
    with journal():
        axes = spatial(drawn, names, title=[title] if title else None, cmap="RdBu_r", ax=ax,
                       show=False)  # fmt: skip
        panels = [axes] if isinstance(axes, Axes) else axes
        for panel, name in zip(panels, names, strict=True):
            most = float(np.nanmax(np.abs(values[name]))) or 1.0
            panel.collections[-1].set_clim(-most, most)
        finish(panels, show, save)
    return panels[0] if isinstance(genes, str) else panels
