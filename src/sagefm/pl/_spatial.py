"""Plot spots on the tissue, colored by a domain, a number or a gene."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from sagefm._errors import InputError
from sagefm._keys import DOMAIN
from sagefm.pl._canvas import Canvas, Crop, canvases
from sagefm.pl._maps import TissueMap, arrange, column_of, draw_maps
from sagefm.pl._marks import Look
from sagefm.pl._scales import Bound, Classes, Numbers, classes, numbers
from sagefm.pl._style import finish, journal
from sagefm.pl._values import Values, values_on

if TYPE_CHECKING:
    from anndata import AnnData


def spatial(
    slide: "AnnData | Sequence[AnnData] | Mapping[str, AnnData]",
    color: str | Sequence[str] = DOMAIN,
    *,
    groups: str | Sequence[str] | None = None,
    title: str | Sequence[str] | None = None,
    cmap: str = "cividis",
    palette: Sequence[str] | None = None,
    vmin: Bound | Sequence[Bound] = None,
    vmax: Bound | Sequence[Bound] = None,
    vcenter: float | None = None,
    layer: str | None = None,
    size: float | None = None,
    alpha: float | None = None,
    image: bool = True,
    img_alpha: float = 0.5,
    crop: Crop = None,
    scale_bar: bool = True,
    ncols: int | None = None,
    slide_key: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | list[Axes]:
    """Draw the spots of one or several slides, on the tissue image if there is one.

    Parameters
    ----------
    slide
        A slide with coordinates in ``obsm["spatial"]`` (pixels); or several, in a list, by name, or
        in one object with `slide_key`. Several sections share the scale of a color: with one color
        there is a panel for each, with several colors a row.
    color
        What the spots are colored by, or several, one panel each: a column of ``obs``, a gene,
        or ``"KEY:COLUMN"`` for a column of ``obsm[KEY]``, by its name if that is a DataFrame
        (``"sagefm_imputed:COL1A1"``), by its number if not (``"X_sagefm:0"``). A gene that the
        slide lacks is taken from ``obsm["sagefm_imputed"]`` if it is there; the title says
        "(imputed)". Spots without a value are gray.
    groups
        Categories to color; the other ones are gray.
    title
        Title of each color; its name if not given.
    cmap
        Colormap for numbers.
    palette
        Colors for categories. If not given, those in ``uns["<color>_colors"]``; if there are none
        that fit, colors that are colorblind-safe up to eight categories, which are then kept there
        (unless the slide is a view, or there are several).
    vmin, vmax
        Where the colors of numbers end: a number, or a percentile such as ``"p99"``; one for all
        colors or one for each. If not given, the 1st and the 99th percentile of all sections, so
        that one spot does not wash out the map; the color bar has a pointed end where values are
        beyond.
    vcenter
        Number in the middle of the colors, such as 0 with ``cmap="RdBu_r"``.
    layer
        Layer with the values of a gene; ``X`` if not given.
    size
        Diameter of a spot, as a fraction of the distance between spots; 0.9 if not given, or less
        on an image, so that tissue shows between the spots.
    alpha
        Opacity of the spots from 0 to 1; 1 if not given, or less on an image.
    image, img_alpha
        Whether to draw the tissue image under the spots, and its opacity.
    crop
        Box to draw: x0, x1, y0 and y1 in the coordinates of the spots; ``"tissue"`` for that of the
        spots with ``obs["in_tissue"]``. That of all spots if not given.
    scale_bar
        Whether to draw a scale bar. It needs the distance of spots (``uns["spot_pitch_um"]``) or
        the scale factors of Space Ranger, in which a spot of Visium has 55 µm.
    ncols
        Panels in a row.
    slide_key
        Column of ``obs`` with the section of each spot; by default as :func:`sagefm.read` recorded.
    ax
        Axes for a single panel.
    show, save
        As in scanpy; `save` is a file name.

    Returns
    -------
    The Axes; a list of Axes if `color` is a list or there are several sections, section by section.
    The figure is 85 mm wide if it has up to four panels in a row.

    Raises
    ------
    InputError
        `color` is nothing that a slide has, the number of titles, limits or axes is not that of
        colors, the palette has fewer colors than there are categories, a slide has no coordinates,
        or an object holds several sections and `slide_key` is not given.
    """
    names = [color] if isinstance(color, str) else list(color)
    titles = [title] * len(names) if title is None else [title] if isinstance(title, str) else title
    if not names or len(titles) != len(names):
        raise InputError(f"{len(titles)} titles for {len(names)} panels; give one for each color")
    look = Look(size, alpha, img_alpha)
    if ncols is not None and not (isinstance(ncols, int | np.integer) and ncols >= 1):
        raise InputError(f"ncols={ncols}: give a whole number from 1 on")
    drawn = canvases(slide, slide_key, image=image, crop=crop)
    if ax is not None and len(names) * len(drawn) > 1:
        n = len(names) * len(drawn)
        raise InputError(f"ax holds one panel, not {n}; draw one color at a time")
    ends = zip(_each("vmin", vmin, names), _each("vmax", vmax, names), strict=True)
    columns: list[list[TissueMap]] = []
    for name, heading, (low, high) in zip(names, titles, ends, strict=True):
        values = [values_on(canvas, name, layer) for canvas in drawn]
        scale = _scale(drawn, name, values, palette, groups, low, high, vcenter, cmap)
        columns.append(_column(drawn, values, scale, heading, alone=len(names) == 1))
    with journal():
        axes = draw_maps(arrange(columns, ncols), look, ax=ax, scale_bar=scale_bar)
        finish(axes, show, save)
    return axes[0] if isinstance(color, str) and len(drawn) == 1 else axes


def _each(name: str, bound: Bound | Sequence[Bound], names: list[str]) -> list[Bound]:
    """Give each color its end of the scale."""
    if bound is None or isinstance(bound, str | float | int | np.number):
        return [bound] * len(names)
    bounds = list(bound)
    if len(bounds) != len(names):
        raise InputError(f"{name}: {len(bounds)} values for {len(names)} colors; give one for each")
    return bounds


def _scale(
    drawn: list[Canvas],
    name: str,
    values: list[Values],
    palette: Sequence[str] | None,
    groups: str | Sequence[str] | None,
    low: Bound,
    high: Bound,
    center: float | None,
    cmap: str,
) -> Numbers | Classes:
    """Choose the colors of all sections."""
    spots = [one.spots for one in values]
    kinds = {one.categorical for one in values}
    if len(kinds) > 1:
        raise InputError(f"{name!r}: holds numbers in one slide and categories in another")
    if kinds == {True}:
        return classes(drawn, name, spots, palette, groups)
    return numbers(
        spots, low=low, high=high, center=center, cmap=cmap,
        label=values[0].unit,
    )  # fmt: skip


def _column(
    drawn: list[Canvas],
    values: list[Values],
    scale: Numbers | Classes,
    title: str | None,
    *,
    alone: bool,
) -> list[TissueMap]:
    """Make the maps of one color; if it is the only one, the titles are those of the sections."""
    spots = [one.spots for one in values]
    heading = values[0].title if title is None else title
    if not alone or len(drawn) == 1:
        return column_of(drawn, spots, scale, heading)
    label = ", ".join(filter(None, [heading, scale.label]))
    scale = replace(scale, label=label)
    return [
        TissueMap(canvas, one.spots, scale, f"{canvas.name} (imputed)" if one.imputed and
                  not values[0].imputed else canvas.name)
        for canvas, one in zip(drawn, values, strict=True)
    ]  # fmt: skip
