"""Plot measured and predicted expression side by side, on one scale for each gene."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Floats
from sagefm.pl._canvas import Canvas, canvases
from sagefm.pl._maps import TissueMap, draw_maps
from sagefm.pl._scales import Numbers, numbers
from sagefm.pl._style import finish, journal
from sagefm.pp.counts import counts
from sagefm.pp.neighborhood import nearest

if TYPE_CHECKING:
    from anndata import AnnData

UNIT = "colors: log1p counts, scaled to the median library size"
_NEIGHBORS = "neighbor mean"


def predicted(
    slide: "AnnData",
    predictions: "Mapping[str, NDArray[Any] | pd.DataFrame]",
    genes: str | Sequence[str],
    *,
    neighbor_mean: bool = False,
    layer: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[list[Axes]]:
    """Plot measured genes and predictions of them side by side, on one scale for each gene.

    What differs from spot to spot most is how many counts a spot has. So that the maps show the
    tissue instead, all values are scaled from the library size of the spot to the median of the
    slide: counts c become log1p(c × median / library size), and a prediction p, which is of log1p
    counts in this spot, log1p(expm1(p) × median / library size).

    Parameters
    ----------
    slide
        A slide with raw counts.
    predictions
        Name → log1p counts, spots × `genes`, such as from :meth:`sagefm.SageFM.predict`; or a
        DataFrame with a column for each gene.
    genes
        The genes, a row of maps each.
    neighbor_mean
        Whether to add the mean of the 14 neighbors: that of their scaled values, which is better
        than scaling the mean of their log1p counts by the library size of the center.
    layer
        Where the raw counts are, if not in ``X`` or ``layers["counts"]``.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    For each gene its Axes: measured, then the predictions. Titles have Pearson's r between the
    scaled values of spots. The colors of a gene end at the 1st and the 99th percentile of its
    predictions: what measured counts have beyond is mostly counting noise, and would leave the maps
    of genes with few counts in a single color. Spots without counts are gray.

    Raises
    ------
    InputError
        The slide lacks a gene, or a prediction is not spots × genes.
    """
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise InputError("genes: there are none; name one at least")
    raw = counts(slide, layer)
    symbols = raw.var.index.astype(str)
    if missing := [name for name in names if name not in symbols]:
        raise InputError(f"{missing[0]}: the slide has no such gene, but {few(symbols)}")
    tables = {name: _as_table(name, held, slide.n_obs, names) for name, held in predictions.items()}
    factor = to_median(raw.matrix)
    measured = _sums(raw.matrix, symbols, names)
    drawn = canvases(slide, image=False)
    columns = {"measured": np.log1p(measured * factor[:, None])}
    for name, table in tables.items():
        columns[name] = np.log1p(np.maximum(np.expm1(table), 0) * factor[:, None])
    if neighbor_mean:
        columns[_NEIGHBORS] = _mean_of_neighbors(drawn, columns["measured"])
    grid: list[list[TissueMap]] = []
    for i, gene in enumerate(names):
        values = {name: held[:, i] for name, held in columns.items()}
        grid += rows_of_gene(drawn, _titled(values, named=i == 0), gene)
    with journal():
        axes = draw_maps(grid, caption=UNIT)
        finish(axes, show, save)
    width = len(columns)
    return [axes[i : i + width] for i in range(0, len(axes), width)]


def to_median(matrix: Any) -> Floats:
    """Get what takes the counts of each spot to the median library size; NaN without counts."""
    library_size = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    filled = library_size > 0
    if not filled.any():
        return np.full(len(library_size), np.nan)
    return np.where(
        filled, np.median(library_size[filled]) / np.where(filled, library_size, 1), np.nan
    )


def rows_of_gene(
    drawn: list[Canvas], values: Mapping[str, Floats], gene: str = ""
) -> list[list[TissueMap]]:
    """Make the maps of a gene (title → values), a row for each section, all on one scale."""
    spots = {title: pd.Series(held) for title, held in values.items()}
    scale = _common_scale(list(spots.values()))
    rows = []
    for canvas in drawn:
        titled = canvas is drawn[0]
        label = ", ".join(filter(None, [gene, canvas.name if len(drawn) > 1 else ""]))
        row = [TissueMap(canvas, held.iloc[canvas.rows], scale, title if titled else "")
               for title, held in spots.items()]  # fmt: skip
        rows.append([replace(row[0], row=label), *row[1:]])
    return rows


def _common_scale(spots: "list[pd.Series[float]]") -> Numbers:
    """Choose the colors by the predictions, unless they are all the same."""
    predictions = numbers(spots[1:] or spots)
    varied = any(one.nunique() > 1 for one in spots[1:])
    low, high = (predictions.low, predictions.high) if varied else (None, None)
    return numbers(spots, low=low, high=high)


def _titled(values: Mapping[str, Floats], *, named: bool) -> dict[str, Floats]:
    """Write the titles of the maps of a gene; rows below the first need no names."""
    (first, truth), *others = values.items()
    titled = {first if named else " ": truth}
    for name, held in others:
        title = f"{name}\n" if named else " " * len(titled)
        titled[f"{title}r = {_r(truth, held):.2f}"] = held
    return titled


def _r(a: Floats, b: Floats) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if known.sum() < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _as_table(name: str, held: Any, n_spots: int, genes: list[str]) -> Floats:
    if isinstance(held, pd.DataFrame):
        if missing := [gene for gene in genes if gene not in held]:
            raise InputError(f"{name}: has no column {missing[0]!r}, but {few(held.columns)}")
        held = held[genes]
    table = np.asarray(held, dtype=np.float64)
    if table.shape != (n_spots, len(genes)):
        raise InputError(
            f"{name}: is {' × '.join(map(str, table.shape))}; give {n_spots} spots × {len(genes)} "
            "genes"
        )
    return table


def _sums(matrix: Any, symbols: Any, genes: list[str]) -> Floats:
    """Get the counts of genes; a name that stands twice has the sum."""
    columns = [matrix[:, np.flatnonzero(symbols == gene)].sum(axis=1) for gene in genes]
    return np.column_stack([np.asarray(one, dtype=np.float64).ravel() for one in columns])


def _mean_of_neighbors(drawn: list[Canvas], values: Floats) -> Floats:
    """Average the 14 nearest spots of the section, without the spot itself."""
    means = np.full(values.shape, np.nan)
    for canvas in drawn:
        if len(canvas.rows) > 1:
            others = nearest(canvas.points, min(15, len(canvas.rows)))[:, 1:]
            means[canvas.rows] = np.nanmean(values[canvas.rows][others], axis=1)
    return means
