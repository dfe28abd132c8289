"""Plot spots on the tissue, colored by a domain, a number or a gene."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sagefm._colors import as_colors, colors
from sagefm._errors import InputError, logger
from sagefm._keys import DOMAIN
from sagefm._text import few
from sagefm.pl._style import COLUMN, finish, journal
from sagefm.pp.counts import coordinates
from sagefm.pp.image import Picture, find_picture
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import find_slide_key

if TYPE_CHECKING:
    from anndata import AnnData

_NOT_LABELED = "#DDDDDD"
_PER_COLUMN = 16
"""Largest number of entries in one column of a legend."""


def spatial(
    slide: "AnnData",
    color: str | Sequence[str] = DOMAIN,
    *,
    title: str | Sequence[str] | None = None,
    cmap: str = "cividis",
    palette: Sequence[str] | None = None,
    image: bool = True,
    size: float = 0.9,
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | list[Axes]:
    """Draw the spots of a slide, on the tissue image if there is one.

    Parameters
    ----------
    slide
        A slide with coordinates in ``obsm["spatial"]`` (pixels).
    color
        A column of ``obs`` or a gene, or several of them, one panel each. Spots without a value
        are gray.
    title
        Title of each panel; the value of `color` if not given.
    cmap
        Colormap for numbers.
    palette
        Colors for categories. If not given, those in ``uns["<color>_colors"]``; if there are none
        that fit, colors that are colorblind-safe up to eight categories, which are then kept there
        (unless the slide is a view).
    image
        Whether to draw the tissue image under the spots.
    size
        Diameter of a spot, as a fraction of the distance between spots.
    layer
        Layer with the values of a gene; ``X`` if not given.
    ax
        Axes for a single panel.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes, or a list of Axes if `color` is a list.

    Raises
    ------
    InputError
        `color` is neither a column nor a gene, the number of titles or axes is not that of colors,
        the palette has fewer colors than there are categories, the slide has no coordinates, or the
        object holds several sections.
    """
    names = [color] if isinstance(color, str) else list(color)
    titles = names if title is None else [title] if isinstance(title, str) else list(title)
    if not names or len(titles) != len(names):
        raise InputError(f"{len(titles)} titles for {len(names)} panels; give one for each color")
    if ax is not None and len(names) > 1:
        raise InputError(f"ax holds one panel, not {len(names)}; draw one color at a time")
    require_one_slide(slide)
    points = coordinates(slide)
    values = [_values(slide, name, layer) for name in names]
    picture = find_picture(slide, points) if image else None
    shades = [_shades(slide, *pair, palette) for pair in zip(names, values, strict=True)]
    with journal():
        if ax is None:
            side = 2.4 if len(names) == 1 else 2.0
            width = sum(side + _room_beside(shown) for shown in values)
            _, grid = plt.subplots(
                1, len(names), figsize=(max(COLUMN, width), side + 0.4), squeeze=False,
                layout="compressed",
            )  # fmt: skip
            axes = list(grid[0])
        else:
            axes = [ax]
        for panel, shown, chosen, heading in zip(axes, values, shades, titles, strict=True):
            _draw_tissue(panel, picture)
            spots = _draw_spots(panel, points, size)
            if isinstance(shown.dtype, pd.CategoricalDtype):
                _color_classes(panel, spots, shown, chosen)
            else:
                spots.set_array(shown.to_numpy(dtype=float, na_value=np.nan))
                spots.set_cmap(mpl.colormaps[cmap].with_extremes(bad=_NOT_LABELED))
                panel.figure.colorbar(spots, ax=panel, shrink=0.6, pad=0.02)
            panel.set_title(heading)
        finish(axes, show, save)
    return axes[0] if isinstance(color, str) else axes


def require_one_slide(slide: "AnnData") -> None:
    """Refuse an object of several sections: they would be drawn on top of each other.

    Raises
    ------
    InputError
        The object holds several sections.
    """
    several = "several sections in one object cannot share a plot; draw one at a time"
    try:
        key = find_slide_key(slide)
    except InputError as error:
        raise InputError(f"{several} ({error})") from error
    values = [] if key is None else slide.obs[key].unique()
    if len(values) > 1:
        raise InputError(f"{several}, such as slide[slide.obs[{key!r}] == {str(values[0])!r}]")


def _values(slide: "AnnData", name: str, layer: str | None) -> "pd.Series[Any]":
    """Return the values to color by: categories (also for strings and booleans) or numbers."""
    if name in slide.obs:
        column: pd.Series[Any] = slide.obs[name]
        number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        return column if number else column.astype("category")
    if name in slide.var_names:
        matrix = slide.X if layer is None else slide.layers.get(layer)
        if matrix is None:
            layers = few((key for key in slide.layers if key is not None), 6) or "none"
            raise InputError(f"{name}: the slide has no {layer or 'X'!r}; layers: {layers}")
        summed = matrix[:, np.flatnonzero(slide.var_names == name)].sum(axis=1)
        return pd.Series(np.asarray(summed).ravel(), index=slide.obs_names)
    remedy = "run sagefm.tl.domains first" if name == DOMAIN else "choose one of them"
    raise InputError(
        f"{name!r} is neither a column of obs ({few(slide.obs.columns, 6)}) nor a gene of the "
        f"slide; {remedy}"
    )


def _room_beside(shown: "pd.Series[Any]") -> float:
    """Estimate the width of the legend or color bar of a panel, in inches."""
    if not isinstance(shown.dtype, pd.CategoricalDtype):
        return 0.5
    longest = max(len(str(name)) for name in [*shown.cat.categories, "not labeled"])
    return _legend_columns(len(shown.cat.categories) + 1) * (0.3 + 0.05 * longest)


def _legend_columns(n_entries: int) -> int:
    return -(-n_entries // _PER_COLUMN)


def _draw_spots(panel: Axes, points: NDArray[np.float64], size: float) -> EllipseCollection:
    """Draw a disk on every spot, in the units of the coordinates."""
    diameter = size
    if len(points) > 1:
        pairs = nearest(points, 2)
        gaps = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
        diameter = size * float(np.median(gaps))
    sizes = np.full(len(points), diameter)
    spots = EllipseCollection(
        sizes, sizes, np.zeros(len(points)), units="x", offsets=points,
        offset_transform=panel.transData, linewidths=0, rasterized=len(points) > 2000,
    )  # fmt: skip
    panel.add_collection(spots)
    low, high = points.min(axis=0) - diameter, points.max(axis=0) + diameter
    panel.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[])  # y points down
    panel.set_aspect("equal")
    panel.spines[:].set_visible(False)
    return spots


def _draw_tissue(panel: Axes, picture: Picture | None) -> None:
    """Draw the tissue image in full-resolution pixels."""
    if picture is not None:
        extent = (0, picture.width, picture.height, 0)
        panel.imshow(picture.pixels, extent=extent, alpha=0.6)


def _shades(
    slide: "AnnData", name: str, shown: "pd.Series[Any]", palette: Sequence[str] | None
) -> list[str]:
    """Choose a color for each category, and keep new colors in the slide; none for numbers."""
    if not isinstance(shown.dtype, pd.CategoricalDtype):
        return []
    classes, key = [str(value) for value in shown.cat.categories], f"{name}_colors"
    if palette is not None:
        if len(palette) < len(classes):
            raise InputError(
                f"the palette has {len(palette)} colors for the {len(classes)} categories of "
                f"{name!r}; give one for each"
            )
        if (chosen := as_colors(palette, classes)) is None:
            raise InputError(f"the palette ({few(palette)}) holds what is no color of matplotlib")
        return chosen[: len(classes)]
    kept = slide.uns.get(key)
    chosen = as_colors(kept, classes)
    if chosen is not None and len(chosen) == len(classes):
        return chosen
    if kept is not None:
        logger.warning(
            "uns[%r] does not hold a color for each of the %d categories of %r: new colors are "
            "chosen", key, len(classes), name,
        )  # fmt: skip
    chosen = colors(len(classes))
    if not slide.is_view:
        slide.uns[key] = chosen
    return chosen


def _color_classes(
    panel: Axes, spots: EllipseCollection, shown: "pd.Series[Any]", chosen: list[str]
) -> None:
    """Color by category, with a legend to the right of the panel."""
    codes = shown.cat.codes.to_numpy()
    spots.set_facecolor([_NOT_LABELED if code < 0 else chosen[code] for code in codes])
    entries = [(str(c), chosen[i]) for i, c in enumerate(shown.cat.categories)]
    if (codes < 0).any():
        entries.append(("not labeled", _NOT_LABELED))
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=shade, label=label)
        for label, shade in entries
    ]
    panel.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False,
        handletextpad=0.1, labelspacing=0.4, ncols=_legend_columns(len(entries)),
    )  # fmt: skip
