"""Draw on the Axes of a map: the tissue image, the spots, a scale bar, a legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.pl._canvas import Canvas
from sagefm.pl._scales import Classes, Numbers
from sagefm.pl._style import SMALL, wrapped

if TYPE_CHECKING:
    from matplotlib.transforms import Transform

_PER_COLUMN = 16
"""Largest number of entries in one column of a legend."""
_ENTRIES = 64
"""Largest number of entries of a legend."""
_NAME = 24
"""Characters in a line of a legend."""
_MANY = 2000
"""Spots that are pixels in a PDF, which would be too large otherwise."""


@dataclass(frozen=True)
class Look:
    """How spots and image are drawn; what is None depends on whether there is an image."""

    size: float | None = None
    """Diameter of a spot over the pitch."""
    alpha: float | None = None
    img_alpha: float = 0.5

    def __post_init__(self) -> None:
        for name, most in (("alpha", 1.0), ("img_alpha", 1.0), ("size", np.inf)):
            value = getattr(self, name)
            if value is not None and not (np.isreal(value) and 0 <= value <= most):
                raise InputError(f"{name}={value!r}: give a number from 0 to {most:g}")


def draw_tissue(panel: Axes, canvas: Canvas, look: Look) -> None:
    """Draw the tissue image in full-resolution pixels."""
    if (picture := canvas.picture) is not None:
        extent = (0, picture.width, picture.height, 0)
        panel.imshow(picture.pixels, extent=extent, alpha=look.img_alpha)


def draw_spots(
    panel: Axes, canvas: Canvas, spots: "pd.Series[Any]", scale: Numbers | Classes, look: Look
) -> EllipseCollection:
    """Draw a disk on every spot; where disks overlap, high numbers lie on top."""
    with_image = canvas.picture is not None
    size = look.size
    if size is None:  # gaps between many small spots would make their colors pale
        size = 0.75 if with_image else 1.0 if len(spots) > _MANY else 0.9
    order = np.arange(len(spots))
    if isinstance(scale, Numbers) and size > 1.05 * canvas.closest:
        order = np.argsort(spots.to_numpy(dtype=np.float64, na_value=-np.inf), kind="stable")
    drawn = disks(panel, canvas.points[order], size * canvas.pitch)
    drawn.set(linewidths=0, rasterized=len(spots) > _MANY)
    if isinstance(scale, Numbers):
        drawn.set_array(spots.to_numpy(dtype=np.float64, na_value=np.nan)[order])
        drawn.set_cmap(scale.colormap)
        drawn.set_clim(scale.low, scale.high)
    else:
        drawn.set_facecolor(scale.of(spots))
    alpha = look.alpha if look.alpha is not None else 0.9 if with_image else None
    drawn.set_alpha(alpha)
    left, right, top, bottom = canvas.window
    panel.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])  # y points down
    panel.set_aspect("equal")
    panel.spines[:].set_visible(False)
    return drawn


def disks(panel: Axes, points: NDArray[np.float64], diameter: float) -> EllipseCollection:
    """Add disks to a panel, in the units of the coordinates."""
    sizes = np.full(len(points), diameter)
    drawn = EllipseCollection(
        sizes, sizes, np.zeros(len(points)), units="x", offsets=points,
        offset_transform=panel.transData,
    )  # fmt: skip
    drawn.set_in_layout(False)
    panel.add_collection(drawn)
    return drawn


def draw_scale_bar(panel: Axes, canvas: Canvas) -> None:
    """Draw a bar of a round length below the map, if the scale is known."""
    if canvas.microns is None:
        return
    left, right, *_ = canvas.window
    room = 0.3 * (right - left) * canvas.microns
    power = 10.0 ** np.floor(np.log10(room))
    length = power * max(step for step in (1, 2, 5) if step * power <= room)
    place: Transform = panel.get_xaxis_transform()  # x of the data, y of the Axes
    end = left + length / canvas.microns
    panel.plot([left, end], [-0.03, -0.03], color="black", lw=1.5, transform=place, clip_on=False,
               solid_capstyle="butt")  # fmt: skip
    name = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    panel.annotate(f" {name}", (end, -0.03), xycoords=place, va="center", fontsize=SMALL,
                   annotation_clip=False)  # fmt: skip


def legend_entries(shades: Mapping[str, str]) -> list[Line2D]:
    """Make the entries of a legend: short names, and not too many."""
    listed = list(shades.items())
    entries = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=shade,
               label=wrapped(name, _NAME, 2))
        for name, shade in listed[:_ENTRIES]
    ]  # fmt: skip
    if len(listed) > _ENTRIES:
        more = f"… and {len(listed) - _ENTRIES:,} more"
        entries.append(Line2D([], [], linestyle="", label=more))
    return entries


def legend_size(entries: Sequence[Line2D], width: float | None = None) -> tuple[int, float]:
    """Choose the columns of a legend, and estimate its width in inches.

    Parameters
    ----------
    width
        What it may have, for a legend that is as wide as it can be.
    """
    names = [str(entry.get_label()) for entry in entries] or [""]
    each = 0.22 + 0.052 * max(len(line) for name in names for line in name.split("\n"))
    lines = sum(name.count("\n") + 1 for name in names)
    columns = -(-lines // _PER_COLUMN) if width is None else max(1, int(width // each))
    columns = min(columns, len(names))
    return columns, columns * each
