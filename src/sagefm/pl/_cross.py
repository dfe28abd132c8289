"""Plot features of a second modality, measured and predicted, and how well all are predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._text import few, probability
from sagefm._uns import provenance
from sagefm.pl._canvas import Canvas, canvases
from sagefm.pl._maps import column_of, draw_maps
from sagefm.pl._scales import numbers
from sagefm.pl._style import COLUMN, NOT_SIGNIFICANT, SIGNIFICANT, finish, journal, wrapped
from sagefm.pp.expression import shared_expression
from sagefm.pp.modalities import modality
from sagefm.tl.crossing import key_of

if TYPE_CHECKING:
    from anndata import AnnData

_MOST, _USUAL = 6, 4
"""Features of maps: at most, and if none are named."""
_ROWS = 40
"""Features of an overview."""
_LEVEL = 0.05
_NOT = "not significant"
_COLUMNS = ("r", "r_low", "r_high", "p", "q", "best_baseline", "gain", "r_neighbors")


def cross(
    slide: "pd.DataFrame | AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    with_: str = "protein",
    features: str | Sequence[str] | None = None,
    *,
    reverse: bool = False,
    layer: str | None = None,
    slide_key: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Plot features of a second modality, measured beside predicted, or an overview of all.

    Parameters
    ----------
    slide
        The table of :func:`sagefm.tl.cross` for the overview; for maps a slide, or several, to
        which it wrote its predictions.
    with_, reverse
        As in :func:`sagefm.tl.cross`.
    features
        Up to six features to map; the first four of the table if not given. Of the overview the
        first 40.
    layer, slide_key
        As in :func:`sagefm.tl.embed`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    Of maps the Axes, measured and predicted, in turn. Both are on one scale, from the 1st to the
    99th percentile of both: the more a prediction is uncertain, the closer it is to the mean. The
    title has r, p and q, and says whether they are not significant (q ≥ 0.05). Of the overview the
    Axes of r (with intervals), and of the best baseline and the neighbor mean.

    Raises
    ------
    InputError
        No such result or feature, or more than six features of maps.
    """
    if isinstance(slide, pd.DataFrame):
        return _overview(slide, show, save)
    drawn = canvases(slide, slide_key, image=False)
    key = key_of(with_, reverse=reverse)
    names, table = _chosen(drawn, key, features)
    measured = _measured(drawn, with_, names, layer, reverse=reverse)
    grid = []
    for name in names:
        predicted = [canvas.slide.obsm[key][name].iloc[canvas.rows] for canvas in drawn]
        sides = [[one[name] for one in measured], predicted]
        scale = numbers([spots for side in sides for spots in side])
        titles = (f"{name}, measured", _verdict(table, name))
        left, right = (
            column_of(drawn, side, scale, title) for side, title in zip(sides, titles, strict=True)
        )
        grid += [[one, replace(other, row="")] for one, other in zip(left, right, strict=True)]
    with journal():
        axes = draw_maps(grid)
        finish(axes, show, save)
    return axes


def _chosen(
    drawn: Sequence[Canvas], key: str, features: str | Sequence[str] | None
) -> tuple[list[str], pd.DataFrame]:
    """Choose the features of maps, and get the table that has them."""
    table = pd.DataFrame()
    for canvas in drawn:
        made = provenance(canvas.slide, "cross").get(key)
        found = made.get("table") if isinstance(made, Mapping) else None
        held = canvas.slide.obsm.get(key)
        if not (isinstance(found, pd.DataFrame) and isinstance(held, pd.DataFrame)):
            named = f"{canvas.name}: " if canvas.name else ""
            raise InputError(f"{named}obsm[{key!r}]: is missing; run sagefm.tl.cross first")
        table = found
    names = table.index[:_USUAL].tolist() if features is None else features
    names = [names] if isinstance(names, str) else list(names)
    if missing := [name for name in names if name not in table.index]:
        raise InputError(f"{missing[0]}: was not predicted; the features are {few(table.index)}")
    if not 0 < len(names) <= _MOST:
        raise InputError(f"{len(names)} features: name 1 to {_MOST} of them")
    return names, table


def _measured(
    drawn: Sequence[Canvas], with_: str, names: list[str], layer: str | None, *, reverse: bool
) -> list[pd.DataFrame]:
    """Get what was predicted, as it was measured: for each section spots × features."""
    slides = list({id(canvas.slide): canvas.slide for canvas in drawn}.values())
    if reverse:
        shared = shared_expression(slides, layer=layer)
        at = [shared.genes.index(name) for name in names]
        tables = [
            pd.DataFrame(x[:, at].toarray(), index=slide.obs_names, columns=names)
            for x, slide in zip(shared.normalized, slides, strict=True)
        ]
    else:
        tables = [_second(slide, with_, names) for slide in slides]
    by_slide = {id(slide): table for slide, table in zip(slides, tables, strict=True)}
    return [by_slide[id(canvas.slide)].iloc[canvas.rows] for canvas in drawn]


def _second(slide: "AnnData", with_: str, names: list[str]) -> pd.DataFrame:
    """Normalize the second modality over the features that were normalized to predict it."""
    found = modality(slide, with_)
    panel = list(provenance(slide, "cross")[key_of(with_)].get("panel", found.counts.columns))
    if missing := [name for name in {*panel, *names} if name not in found.counts]:
        raise InputError(
            f"obsm['{found.key}'] has no {min(missing)} any more; run sagefm.tl.cross again"
        )
    return replace(found, counts=found.counts[panel]).normalized()[names]


def _verdict(table: pd.DataFrame, name: str) -> str:
    """Write r, p and q of a feature, and whether they are significant."""
    row: dict[str, float] = {key: float(table[key][name]) for key in ("r", "p", "q")}
    kind = "predicted" if row["q"] < _LEVEL else f"predicted, {_NOT}"
    r = f"r = {row['r']:.2f}, {probability('p', row['p'])}"
    return f"{kind}\n{r}\n{probability('q', row['q'])}"


def _overview(table: pd.DataFrame, show: bool | None, save: str | Path | None) -> list[Axes]:
    """Plot r of each feature with its interval, beside the baselines."""
    if missing := [name for name in _COLUMNS if name not in table]:
        raise InputError(f"the table has no column {missing[0]!r}; give that of sagefm.tl.cross")
    rows = table.head(_ROWS)
    if rows.empty:
        raise InputError("the table has no rows; there is nothing to draw")
    at = np.arange(len(rows))
    passed = (rows["q"] < _LEVEL).to_numpy()
    n_passed = int((table["q"] < _LEVEL).sum())
    with journal():
        _, panel = plt.subplots(figsize=(COLUMN, 1.2 + 0.13 * len(rows)), layout="constrained")
        for which, color, label in ((passed, SIGNIFICANT, "predicted, q < 0.05"),
                                    (~passed, NOT_SIGNIFICANT, f"predicted, {_NOT}")):  # fmt: skip
            some = rows[which]
            if len(some):
                panel.hlines(at[which], some["r_low"], some["r_high"], color=color, linewidth=0.8)
                panel.plot(some["r"], at[which], "o", color=color, markersize=3, label=label)
        panel.plot(
            rows["r"] - rows["gain"], at, "|", color="black", markersize=6, label="best baseline"
        )
        panel.plot(
            rows["r_neighbors"], at, "x", color="#0072B2", markersize=3, label="neighbor mean"
        )
        panel.axvline(0, color="0.7", linewidth=0.6, zorder=0)
        panel.set_yticks(at, [wrapped(str(name), 24, 1) for name in rows.index])
        panel.set(
            ylim=(len(rows) - 0.4, -0.6), xlabel="r, out of spatial blocks",
            title=f"{n_passed} of {len(table)} features with q < 0.05"
            if n_passed else f"none of {len(table)} features is significant",
        )  # fmt: skip
        panel.figure.legend(
            frameon=False, ncols=2, loc="outside lower center", handletextpad=0.4
        )  # fmt: skip
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        finish([panel], show, save)
    return [panel]
