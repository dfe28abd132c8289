"""Plot on the tissue the counts, the novelty, and the error of a model on masked genes."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import QUALITY
from sagefm.pl._canvas import Canvas, canvases
from sagefm.pl._maps import TissueMap, arrange, column_of, draw_maps
from sagefm.pl._scales import numbers
from sagefm.pl._style import finish, journal

if TYPE_CHECKING:
    from anndata import AnnData

_GAIN = "gain"


class _Panel(NamedTuple):
    column: str
    title: str
    unit: str
    cmap: str = "cividis"


_PANELS = (
    _Panel("counts", "counts per spot", "counts"),
    _Panel("genes", "genes per spot", "genes detected"),
    _Panel("novelty", "unlike the training spots", "novelty"),
    _Panel("error", "error on masked genes", "mean squared, log1p counts"),
    _Panel(_GAIN, "error minus that of the neighbor mean", "below 0 the model is better", "PuOr"),
)


def quality(
    slide: "AnnData", *, show: bool | None = None, save: str | Path | None = None
) -> list[Axes]:
    """Draw the quality of a slide, and of a model on it, for every spot.

    Parameters
    ----------
    slide
        A slide with the result of :func:`sagefm.report.quality`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes of counts, genes, novelty (0 to 1), mean squared error of the model on the genes that
    were masked in the spot (log1p counts), and that error minus the error of the neighbor mean
    (orange: the model is better; purple: the neighbor mean is better). Panels without any value are
    left out. Colors range from the 1st to the 99th percentile. Several sections are rows.

    Raises
    ------
    InputError
        The slide has no such result, or the sections of the object are not known.
    """
    if QUALITY not in slide.obsm:
        raise InputError(f"obsm[{QUALITY!r}] is missing; run sagefm.report.quality first")
    drawn = canvases(slide, image=False)
    spots: pd.DataFrame = slide.obsm[QUALITY].copy()
    if "error" in spots:
        spots[_GAIN] = spots["error"] - spots["error_neighbor_mean"]
    panels = [p for p in _PANELS if p.column in spots and spots[p.column].notna().any()]
    columns = [_column(drawn, spots, panel) for panel in panels]
    with journal():
        axes = draw_maps(arrange(columns, 2))
        finish(axes, show, save)
    return axes


def _column(drawn: list[Canvas], spots: pd.DataFrame, panel: _Panel) -> list[TissueMap]:
    """Make the maps of a column, one for each section."""
    values = [spots[panel.column].iloc[canvas.rows].astype(float) for canvas in drawn]
    low, high = (0.0, 1.0) if panel.column == "novelty" else (None, None)
    center = 0.0 if panel.column == _GAIN else None
    scale = numbers(values, low=low, high=high, center=center, cmap=panel.cmap, label=panel.unit)
    return column_of(drawn, values, scale, panel.title)
