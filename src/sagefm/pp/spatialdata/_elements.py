"""The elements of a SpatialData that a slide needs: where its spots are, and images of the tissue.

Those of an object in memory and of a folder on disk have the same form.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._extras import require
from sagefm.pp.spatialdata._affine import Matrix

_LARGEST_SIDE = 2000
"""Pixels of an image that is kept."""
_MOST_PIXELS = 10**8
"""Of labels, unless an instance is too small to be in such an image."""
_STRIP = 2**22
"""Pixels of labels that are in memory at a time."""


@dataclass(frozen=True)
class Instances:
    """The centers of the instances of an element, in its own coordinates.

    Attributes
    ----------
    ids
        Instance ids.
    xy
        Instances × 2.
    diameter
        The median over all, if they have an extent.
    systems
        Coordinate system → matrix.
    what
        Shapes, labels or points.
    """

    ids: pd.Index
    xy: NDArray[np.float64]
    diameter: float | None
    systems: Mapping[str, Matrix]
    what: str


@dataclass(frozen=True)
class Raster:
    """An image or labels at several scales, none of which is in memory.

    Attributes
    ----------
    name
        Of the element.
    axes
        Such as ``"cyx"``.
    levels
        Arrays, the largest first.
    systems
        Coordinate system → matrix, for pixels of the largest.
    """

    name: str
    axes: str
    levels: Sequence[Any]
    systems: Mapping[str, Matrix]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the largest scale."""
        return self._side(self.levels[0], "x"), self._side(self.levels[0], "y")

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self._side(self.levels[0], "c")

    def _side(self, level: Any, axis: str) -> int:
        return int(level.shape[self.axes.index(axis)]) if axis in self.axes else 1

    def _fitting(self) -> tuple[Any, int]:
        """Choose a scale for the preview, and of how many pixels one is kept."""
        sides = [max(self._side(level, axis) for axis in "xy") for level in self.levels]
        at = next((i for i, side in enumerate(sides) if side <= _LARGEST_SIDE), len(sides) - 1)
        return self.levels[at], -(-sides[at] // _LARGEST_SIDE)

    @property
    def preview_side(self) -> int:
        """Width or height of the preview, the larger one."""
        level, step = self._fitting()
        return max(self._side(level, axis) for axis in "xy") // step

    def preview(self) -> tuple[NDArray[Any], float]:
        """Get pixels (y, x, channels) of a fitting scale, and its factor.

        Channels are stains, of which the first is taken, unless they are red, green, blue and, in
        8 bits, alpha.
        """
        level, step = self._fitting()
        colored = self.n_channels == 3 or (self.n_channels == 4 and level.dtype == np.uint8)
        taken = {"c": slice(None) if colored else slice(1)}
        taken |= {axis: slice(None, None, step) for axis in "xy"}
        pixels: Any = np.asarray(level[tuple(taken.get(axis, slice(1)) for axis in self.axes)])
        order = [self.axes.index(axis) for axis in "yxc" if axis in self.axes]
        others = [at for at in range(len(self.axes)) if at not in order]
        pixels = np.transpose(pixels, [*order, *others])
        pixels = pixels.reshape(pixels.shape[: len(order)])
        pixels = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
        return pixels, self._side(level, "x") / self.size[0] / step


class Elements(Protocol):
    """The elements of a SpatialData."""

    def names(self) -> dict[str, str]:
        """Map each shapes, labels and points to which of the three it is."""

    def instances(self, name: str, wanted: pd.Index) -> Instances:
        """Get the instances of an element, at least the wanted ones that it has."""

    def images(self, notes: list[str]) -> Iterator[Raster]:
        """Iterate over the images; one that cannot be read is noted."""


def of_shapes(frame: Any, systems: Mapping[str, Matrix]) -> Instances:
    """Get the centers of circles and polygons, from a GeoDataFrame."""
    shapely = require("shapely", "spatialdata", "reading the shapes of a SpatialData")
    geometry = np.asarray(frame["geometry"])
    centers = shapely.centroid(geometry)
    xy = np.column_stack([shapely.get_x(centers), shapely.get_y(centers)])
    if "radius" in frame:
        size = 2 * frame["radius"].to_numpy(dtype=np.float64)
    else:
        size = np.sqrt(shapely.area(geometry))
    return Instances(frame.index, xy, _median(size), systems, "shapes")


def of_points(frame: Any, systems: Mapping[str, Matrix]) -> Instances:
    """Get the points of a DataFrame with x and y."""
    xy = frame[["x", "y"]].to_numpy(dtype=np.float64)
    return Instances(frame.index, xy, None, systems, "points")


def of_labels(raster: Raster, wanted: pd.Index) -> Instances:
    """Get the centers of labels, at a scale at which all wanted ones can be seen."""
    n_pixels = [int(np.prod(level.shape)) for level in raster.levels]
    at = next((i for i, n in enumerate(n_pixels) if n <= _MOST_PIXELS), len(n_pixels) - 1)
    sums = _sums(raster.levels[at])
    while at and not wanted.isin(sums.index).all():
        at -= 1
        sums = _sums(raster.levels[at])
    factors = [raster.size[i] / raster.levels[at].shape[-1 - i] for i in (0, 1)]
    xy = (sums[["x", "y"]].div(sums["n"], axis=0) + 0.5).to_numpy() * factors
    diameter = _median(np.sqrt(sums["n"].to_numpy() * factors[0] * factors[1]))
    flat = "z" not in raster.axes
    return Instances(sums.index, xy, diameter if flat else None, raster.systems, "labels")


def _sums(level: Any) -> pd.DataFrame:
    """Sum the columns, rows and number of pixels of each label, without the background."""
    height, width = level.shape[-2:]
    strip = max(1, _STRIP // width)
    parts = []
    for plane in np.ndindex(*level.shape[:-2]):
        for start in range(0, height, strip):
            block = np.asarray(level[(*plane, slice(start, start + strip))])
            ids, which = np.unique(block, return_inverse=True)
            which = which.reshape(-1)
            x, y = np.tile(np.arange(width), len(block)), np.repeat(np.arange(len(block)), width)
            sums = {"x": np.bincount(which, x), "y": np.bincount(which, y + start)}
            sums["n"] = np.bincount(which).astype(np.float64)
            parts.append(pd.DataFrame(sums, index=ids))
    total = pd.concat(parts) if parts else pd.DataFrame(columns=["x", "y", "n"], dtype=float)
    total = total.groupby(level=0).sum()
    return total.drop(index=0, errors="ignore")


def _median(sizes: NDArray[np.float64]) -> float | None:
    known = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.median(known)) if len(known) else None
