"""Plot on the tissue the counts, the novelty, and the error of a model on masked genes."""

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
from sagefm.pp.image import image_of

if TYPE_CHECKING:
    from anndata import AnnData

_SIDE, _BESIDE, _ABOVE = 2.0, 0.55, 0.4
"""Width of the spots of a panel, width of its color bar, height of its title, in inches."""
_COLUMNS = 3
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
    left out. Colors range from the 1st to the 99th percentile.

    Raises
    ------
    InputError
        The slide has no such result, or the object holds several sections.
    """
    if QUALITY not in slide.obsm:
        raise InputError(f"obsm[{QUALITY!r}] is missing; run sagefm.report.quality first")
    require_one_slide(slide)
    spots: pd.DataFrame = slide.obsm[QUALITY].copy()
    if "error" in spots:
        spots[_GAIN] = spots["error"] - spots["error_neighbor_mean"]
    panels = [p for p in _PANELS if p.column in spots and spots[p.column].notna().any()]
    points = coordinates(slide)
    drawn = ad.AnnData(
        obs=spots,
        uns=image_of(slide, points),
        obsm={SPATIAL: points},
    )
    with journal():
        axes = _grid(drawn, len(panels))
        for panel, ax in zip(panels, axes, strict=True):
            _draw(drawn, panel, ax)
        finish(axes, show, save)
    return axes


def _grid(drawn: "AnnData", n_panels: int) -> list[Axes]:
    """Create the Axes: up to three panels in a row."""
    across = min(n_panels, _COLUMNS)
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
    if panel.column == _GAIN:  # center the colors at 0
        high = max(abs(low), abs(high))
        low = -high
    elif panel.column == "novelty":
        low, high = 0.0, 1.0
    if high > low:
        spots.set_clim(low, high)
    if spots.colorbar is not None:
        spots.colorbar.set_label(panel.unit, fontsize=6)
