"""Plot the domains that several methods find, in the colors of the labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from sagefm._colors import colors
from sagefm._errors import InputError
from sagefm._keys import SPATIAL
from sagefm._text import few
from sagefm.pl._canvas import canvases
from sagefm.pl._maps import TissueMap, draw_maps, in_rows
from sagefm.pl._scales import NOT_LABELED, Classes
from sagefm.pl._style import GRAY, finish, journal

SPOT_COLUMNS = ("slide", "spot", "x", "y", "label")
_MAX_COLUMNS = 3
_FURTHER = "further domain"


def domain_maps(
    spots: pd.DataFrame,
    methods: Sequence[str] | None = None,
    *,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes]:
    """Plot the labels of a slide, and the domains that methods find.

    Domains are matched to labels so that as many spots as possible agree, and have the color of
    their label; domains without a label have further colors.

    Parameters
    ----------
    spots
        Table ``domains_spots`` of a result, one slide of it: x, y, label (may be missing) and a
        column per method.
    methods
        What to plot; all columns with domains if not given.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes: the labels if there are any, then the methods.

    Raises
    ------
    InputError
        There are several slides, a method is not in the table, or there is nothing to draw.
    """
    if "slide" in spots and spots["slide"].nunique() > 1:
        raise InputError(f"several slides ({few(spots['slide'].unique())}); draw one at a time")
    if methods is None:
        methods = [str(c) for c in spots if c not in SPOT_COLUMNS and spots[c].notna().any()]
    if missing := [name for name in methods if name not in spots]:
        raise InputError(f"{few(missing)}: not in the table, which has {few(spots.columns, 20)}")
    panels = _matched(spots, methods)
    if not panels:
        raise InputError("there is nothing to draw: neither labels nor domains")
    names = list(dict.fromkeys(name for one in panels.values() for name in sorted(set(one))))
    names.sort(key=lambda name: (name == NOT_LABELED, name.startswith(_FURTHER)))
    labeled = [name for name in names if name != NOT_LABELED]
    shades = dict(zip(labeled, colors(len(labeled)), strict=True)) | {NOT_LABELED: GRAY}
    scale = Classes({name: shades[name] for name in names})
    (canvas,) = canvases(
        AnnData(
            obs=pd.DataFrame(index=np.arange(len(spots)).astype(str)),
            obsm={SPATIAL: spots[["x", "y"]].to_numpy(dtype=float)},
        )
    )
    maps = [
        TissueMap(canvas, values.where(values.isin(labeled)).astype("category"), scale, title)
        for title, values in panels.items()
    ]
    with journal():
        axes = draw_maps(in_rows(maps, min(len(maps), _MAX_COLUMNS)), scale_bar=False)
        finish(axes, show, save)
    return axes


def _matched(spots: pd.DataFrame, methods: Sequence[str]) -> "dict[str, pd.Series[str]]":
    """Rename the domains of all methods after the labels, or the domains of the first method."""
    panels: dict[str, pd.Series[str]] = {}
    truth = spots["label"] if "label" in spots else pd.Series(None, index=spots.index, dtype=object)
    if truth.notna().any():
        panels["labels"] = _named(truth, {})
    for method in methods:
        domains = spots[method]
        if not truth.notna().any():
            truth = domains.astype(object).map(_domain, na_action="ignore")
        panels[method] = _named(domains, _match(domains, truth))
    return panels


def _domain(domain: object) -> str:
    """Name a domain; numbers are floats in a column with missing values."""
    return f"domain {int(domain) if isinstance(domain, float) else domain}"


def _match(domains: "pd.Series[Any]", truth: "pd.Series[Any]") -> dict[Any, str]:
    """Match domains to labels so that as many spots as possible agree."""
    from scipy.optimize import linear_sum_assignment

    table = pd.crosstab(domains, truth)
    names_of_domains, labels, n_spots = list(table.index), list(table.columns), table.to_numpy()
    rows, columns = linear_sum_assignment(-n_spots)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if n_spots[i, j]]
    names = {names_of_domains[i]: str(labels[j]) for i, j in pairs}
    rest = [domain for domain in sorted(domains.dropna().unique()) if domain not in names]
    return names | {domain: f"{_FURTHER} {i + 1}" for i, domain in enumerate(rest)}


def _named(values: "pd.Series[Any]", names: Mapping[Any, str]) -> "pd.Series[str]":
    named = values.astype(object).map(lambda one: names.get(one, str(one)), na_action="ignore")
    return named.where(values.notna(), NOT_LABELED)
