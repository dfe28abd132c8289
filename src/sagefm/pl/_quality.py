"""How far to trust a model, on the tissue: depth, novelty, and how well hidden genes come back."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import QUALITY, SPATIAL
from sagefm.pl._spatial import require_one_slide, spatial
from sagefm.pl._style import finish, journal
from sagefm.pp.counts import coordinates

if TYPE_CHECKING:
    from anndata import AnnData

_SIDE, _BESIDE, _ABOVE = 2.0, 0.55, 0.4
"""Inches: width of the spots of a panel, its color bar, its title."""
_ACROSS = 3
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
    _Panel("error", "error on hidden genes", "mean squared, log1p counts"),
    _Panel(_GAIN, "error above the neighbor mean's", "below 0 the model is better", "PuOr"),
)


def quality(
    slide: "AnnData", *, show: bool | None = None, save: str | Path | None = None
) -> list[Axes]:
    """Draw what is known of every spot about the quality of a slide and of a model on it.

    Parameters
    ----------
    slide
        With the result of :func:`sagefm.report.quality`.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes of counts, genes, novelty (from 0 to 1), error of the model on the genes that were
    hidden in the spot, and that error less the neighbor mean's (orange: the model is better;
    purple: the neighbor mean is). What is not known of any spot is left out; colors go from the 1st
    to the 99th percentile.

    Raises
    ------
    InputError
        No such result, or the object holds several slides.
    """
    if QUALITY not in slide.obsm:
        raise InputError(f"obsm[{QUALITY!r}]: is not there; run sagefm.report.quality first")
    require_one_slide(slide)
    known: pd.DataFrame = slide.obsm[QUALITY].copy()
    if "error" in known:
        known[_GAIN] = known["error"] - known["error_neighbor_mean"]
    panels = [p for p in _PANELS if p.column in known and known[p.column].notna().any()]
    drawn = ad.AnnData(
        obs=known,
        uns={key: slide.uns[key] for key in (SPATIAL,) if key in slide.uns},
        obsm={SPATIAL: coordinates(slide)},
    )
    with journal():
        axes = _grid(drawn, len(panels))
        for panel, ax in zip(panels, axes, strict=True):
            _draw(drawn, panel, ax)
        finish(axes, show, save)
    return axes


def _grid(drawn: "AnnData", n_panels: int) -> list[Axes]:
    """Make room: up to three panels beside each other."""
    across = min(n_panels, _ACROSS)
    down = -(-n_panels // across)
    wide, high = np.ptp(drawn.obsm[SPATIAL], axis=0)
    height = _SIDE * min(max(high / max(wide, 1e-9), 0.4), 2.0) + _ABOVE
    size = ((_SIDE + _BESIDE) * across, height * down)
    _, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="compressed")
    for spare in grid.flat[n_panels:]:
        spare.set_axis_off()
    return list(grid.flat[:n_panels])


def _draw(drawn: "AnnData", panel: _Panel, ax: Axes) -> None:
    spatial(drawn, panel.column, title=panel.title, cmap=panel.cmap, ax=ax, show=False)
    spots = ax.collections[-1]
    low, high = np.nanpercentile(drawn.obs[panel.column], [1, 99])
    if panel.column == _GAIN:  # the middle of the colors is 0
        high = max(abs(low), abs(high))
        low = -high
    elif panel.column == "novelty":
        low, high = 0.0, 1.0
    if high > low:
        spots.set_clim(low, high)
    if spots.colorbar is not None:
        spots.colorbar.set_label(panel.unit, fontsize=6)
