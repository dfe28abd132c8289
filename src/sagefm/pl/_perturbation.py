"""Pictures of perturbations: effects beside those of other genes, and where the tissue responds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from sagefm._errors import InputError
from sagefm._keys import RESPONSE
from sagefm._text import few, numbered, probability
from sagefm.pl._canvas import canvases
from sagefm.pl._maps import arrange, column_of, draw_maps
from sagefm.pl._scales import numbers
from sagefm.pl._style import COLUMN, NOT_SIGNIFICANT, SIGNIFICANT, finish, journal, wrapped
from sagefm.tl.perturbation import top_pairs

if TYPE_CHECKING:
    from anndata import AnnData

_NULL = "#CCCCCC"
_CHANGE = "change of predicted log1p counts"
_MOST = 99.5
"""Percentile of the changes at which the colors end."""
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
    The Axes. A mark per pair, a colored diamond where q < 0.05; its line is the range of refits;
    the gray bar holds 95 % of the effects of matched genes on the same target, the tick their
    median.

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
            of_refits = "range of refits"
            marks.append(ax.hlines(rows, *ends, color=NOT_SIGNIFICANT, lw=1, label=of_refits))
        passed, tested = shown["q"] < 0.05, shown["q"].notna().any()
        for which, shade, mark, label in (
            (~passed, NOT_SIGNIFICANT, "o", "q ≥ 0.05" if tested else "no q"),
            (passed, SIGNIFICANT, "D", "q < 0.05"),
        ):
            if which.any():
                dots = shown["effect"][which], rows[which]
                marks[:0] = ax.plot(*dots, mark, color=shade, ms=3.5, label=label)
        ax.axvline(0, color=gray, lw=0.6)
        names = [f"{a} \u2013 {b}" for a, b in zip(shown["ligand"], shown["target"], strict=True)]
        ax.set_yticks(rows, [wrapped(name, 34, 1) for name in names])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.use_sticky_edges = False
        ax.locator_params(axis="x", nbins=5 if max(map(len, names)) < 24 else 4)
        ax.tick_params(labelsize=6)
        # Words end at the right border: to the left, below and above the names, there is room.
        ax.set_xlabel(
            "effect: predicted target, ligand at its highest\n"
            f"minus at its lowest ({_short_ticks(ax)}log1p counts)",
            fontsize=7, loc="right", ma="left",
        )  # fmt: skip
        ax.legend(
            handles=marks, ncols=2, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.2,
        )  # fmt: skip
        ax.set_title(_passed(table), x=1, ha="right", pad=6 + 11 * -(-len(marks) // 2))
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        finish([ax], show, save)
    return ax


def _short_ticks(ax: Axes) -> str:
    """Write the ticks of small effects in a power of ten, which is returned for the label."""
    power = int(np.floor(np.log10(np.abs(ax.get_xlim()).max())))
    if power > -3:
        return ""
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 10.0**power:.3g}".replace("-", "\u2212"))
    return f"10$^{{{power}}}$ "


def _passed(table: pd.DataFrame) -> str:
    """Count the pairs that pass, of those that were tested."""
    passed, tested = int((table["q"] < 0.05).sum()), int(table["q"].notna().sum())
    if not tested:
        return "no pair was tested: none has a q"
    if not passed:
        return "no pair has q < 0.05" + (f", of {tested:,} tested" if tested > 1 else "")
    return f"q < 0.05: {passed:,} of {numbered(tested, 'pair')}"


def response(
    slide: "AnnData",
    genes: str | Sequence[str],
    *,
    key: str = RESPONSE,
    title: str | Sequence[str] | None = None,
    q: float | Sequence[float] | None = None,
    limit: float | None = None,
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
        Of each panel; the gene if not given.
    q
        Of the pair of each panel, from :func:`sagefm.tl.perturb`: the title gives it, and says so
        where the pair is not significant (0.05 or more, or missing: not tested).
    limit
        The change, up or down, at which the colors end; if not given, each gene has its own: the
        99.5th percentile of its changes. Give the same one to all maps that are compared.
    ax
        Axes to draw one panel on.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes, or a list of them where `genes` is a list or the object holds several sections, which
    are rows. Colors are even around 0.

    Raises
    ------
    InputError
        No such result or gene, the number of titles or of q is not that of genes, the limit is not
        above 0, or the sections of the object are not known.
    """
    if key not in slide.obsm:
        raise InputError(f"obsm[{key!r}]: is not there; run sagefm.tl.respond first")
    held = slide.obsm[key]
    if not isinstance(held, pd.DataFrame):
        raise InputError(f"obsm[{key!r}]: is no table of genes; run sagefm.tl.respond first")
    names = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    if missing := [name for name in names if name not in held]:
        raise InputError(f"{missing[0]}: obsm[{key!r}] has no such gene, but {few(held.columns)}")
    if limit is not None and not (np.isfinite(limit) and limit > 0):
        raise InputError(f"limit={limit}: give a number above 0")
    drawn = canvases(slide, image=False)
    if ax is not None and len(names) * len(drawn) > 1:
        raise InputError(f"ax holds one panel, not {len(names) * len(drawn)}; draw one at a time")
    columns = []
    for name, heading in zip(names, _headings(names, title, q), strict=True):
        parts = [held[name].iloc[canvas.rows].astype(float) for canvas in drawn]
        most = limit or _usual_limit(parts)
        scale = numbers(parts, low=-most, high=most, cmap="RdBu_r", label=_CHANGE)
        columns.append(column_of(drawn, parts, scale, heading))
    with journal():
        panels = draw_maps(arrange(columns), ax=ax)
        finish(panels, show, save)
    return panels[0] if isinstance(genes, str) and len(drawn) == 1 else panels


def _usual_limit(parts: "Sequence[pd.Series[float]]") -> float:
    """Choose where the colors end: most changes are within."""
    sizes = np.abs(np.concatenate([one.to_numpy() for one in parts]))
    sizes = sizes[np.isfinite(sizes)]
    most = float(np.percentile(sizes, _MOST)) if sizes.size else 0.0
    return most or float(sizes.max(initial=0.0)) or 1.0


def _headings(
    names: list[str], title: str | Sequence[str] | None, q: float | Sequence[float] | None
) -> list[str]:
    """Write a title for each panel, with what its q says."""
    titles = names if title is None else [title] if isinstance(title, str) else list(title)
    if len(titles) != len(names):
        raise InputError(f"{len(titles)} titles for {len(names)} panels; give one for each gene")
    if q is None:
        return titles
    each = np.atleast_1d(np.asarray(q, dtype=np.float64))
    if len(each) != len(titles):
        raise InputError(f"{len(each)} values of q for {len(titles)} panels; give one for each")
    return [f"{heading}\n({_significance(one)})" for heading, one in zip(titles, each, strict=True)]


def _significance(q: float) -> str:
    if np.isnan(q):
        return "not tested: no q"
    return probability("q", q) + ("" if q < 0.05 else ": not significant")
