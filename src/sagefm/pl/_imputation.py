"""Plot imputed genes on the tissue, next to the measured counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import IMPUTED
from sagefm._text import few
from sagefm._types import Floats
from sagefm._uns import provenance
from sagefm.pl._canvas import canvases
from sagefm.pl._maps import Grid, TissueMap, draw_maps
from sagefm.pl._predicted import UNIT, rows_of_gene, to_median
from sagefm.pl._style import finish, journal
from sagefm.pp.counts import Counts, counts

if TYPE_CHECKING:
    from anndata import AnnData

_MOST = 6
"""Maximum number of genes."""


def clearest(table: pd.DataFrame, n: int = _MOST) -> list[str]:
    """Choose genes to draw, those with the highest observed or expected correlation."""
    r = table["r_model"].fillna(table["r_expected"]).fillna(-1.0)
    return [str(gene) for gene in r.sort_values(ascending=False, kind="stable").index[:n]]


def imputed(
    slide: "AnnData",
    genes: str | Sequence[str] | None = None,
    *,
    layer: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[list[Axes]]:
    """Plot imputed genes on the tissue, to the right of the measured counts.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.tl.impute`.
    genes
        One of its genes, or up to six; the six that are recovered best if not given.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    For each gene its Axes: measured (where it is) and imputed, on one scale, from the 1st to the
    99th percentile of the imputed values. Values are scaled to the median library size, as in
    :func:`sagefm.pl.predicted`; spots that were not imputed are gray in both. The title of the
    imputed gene has the observed correlation and that of the neighbor mean, or the expected
    correlation and its range.

    Raises
    ------
    InputError
        No such result or gene, or more than six genes.
    """
    made = provenance(slide, "imputed", key=str, scale=str, confidence=pd.DataFrame)
    if not made or not isinstance(slide.obsm.get(made["key"]), pd.DataFrame):
        raise InputError(f"obsm[{IMPUTED!r}]: is missing; run sagefm.tl.impute first")
    table, values = made["confidence"], slide.obsm[made["key"]]
    names = clearest(table) if genes is None else [genes] if isinstance(genes, str) else list(genes)
    if missing := [name for name in names if name not in values]:
        raise InputError(
            f"{missing[0]}: was not imputed; the imputed genes are {few(values.columns)}"
        )
    if not 0 < len(names) <= _MOST:
        raise InputError(f"{len(names)} genes: name 1 to {_MOST} of them")
    raw = counts(slide, layer)
    factor = to_median(raw.matrix)
    truth = _measured(raw, table.loc[names])
    drawn = canvases(slide, image=False)
    genes_of: list[list[list[TissueMap]]] = []
    for name in names:
        found = _scaled(values[name].to_numpy(dtype=np.float64), made["scale"], raw.matrix, factor)
        maps = {f"{name}, imputed\n{_correlation(table.loc[name])}": found}
        if name in truth:
            kept = np.where(np.isfinite(found), truth[name] * factor, np.nan)
            maps = {f"{name}, measured": np.log1p(kept)} | maps
        genes_of.append(rows_of_gene(drawn, maps))
    with journal():
        axes = draw_maps(_packed(genes_of), caption=UNIT)
        finish(axes, show, save)
    panels = iter(axes)
    return [[next(panels) for _ in range(sum(map(len, rows)))] for rows in genes_of]


def _packed(genes_of: list[list[list[TissueMap]]]) -> Grid:
    """Lay out the maps of genes: pairs below each other or, if there are many, two in a row."""
    width = max(len(row) for rows in genes_of for row in rows)
    padded: list[list[TissueMap | str | None]] = []
    for row in (row for rows in genes_of for row in rows):
        gene = row[0].title.partition(",")[0]
        padded.append([f"{gene}: not measured", *row] if len(row) < width else [*row])
    across = min(3 if width == 1 else 1 if len(padded) < 4 else 2, len(padded))
    spare: list[TissueMap | str | None] = [None] * width
    padded += [spare] * (-len(padded) % across)
    return [
        [one for row in padded[i : i + across] for one in row]
        for i in range(0, len(padded), across)
    ]


def _measured(raw: "Counts", table: pd.DataFrame) -> dict[str, Floats]:
    """Get the counts of the measured genes of a table."""
    names = raw.var.index.astype(str)
    measured = {}
    for gene, called in table.loc[table["measured"].astype(bool), "slide_gene"].items():
        columns = np.flatnonzero(names.isin(called.split(";")))
        total = raw.matrix[:, columns].sum(axis=1)
        measured[str(gene)] = np.asarray(total, dtype=np.float64).ravel()
    return measured


def _scaled(values: Floats, scale: str, matrix: Any, factor: Floats) -> Floats:
    """Take imputed values to log1p counts at the median library size."""
    if scale == "log1p":
        expected = np.maximum(np.expm1(values), 0)
    else:
        expected = values * np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel() / 1e4
    scaled: Floats = np.log1p(expected * factor)
    return scaled


def _correlation(row: "pd.Series[float]") -> str:
    """Describe in a few words how well a gene is predicted."""
    measured = bool(row["measured"])
    r = row["r_model"] if measured else row["r_expected"]
    if np.isnan(r):
        return "r unknown"
    if not measured:
        return (
            f"expected r = {r:.2f} ({row['r_expected_low']:.2f}\u2013{row['r_expected_high']:.2f})"
        )
    return f"r = {r:.2f} (neighbors {row['r_neighbor_mean']:.2f})"
