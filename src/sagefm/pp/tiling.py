"""Tile a section: squares, or the hexagonal grid of Visium, on its array or in micrometers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._types import Floats, Positions
from sagefm.pp.grid import EXACTLY, Grid

SPOT_UM, PITCH_UM = 55.0, 100.0
"""Diameter and distance of the spots of Visium."""
_ROW = float(np.sqrt(0.75))
"""Distance of the rows of a hexagonal grid, in pitches."""
_IN_PLACE = 0.25
"""Bins, between where a bin is and where its row and column place it, at most."""
_MOST = 0.99
"""Fraction of the bins that must be in their places."""
_SQUARE = 0.05
"""Tolerated difference of the two sides of a bin, and of their angle from 90°."""
_WHOLE = 0.01
"""Tolerated difference of a size from a whole number."""
_LARGEST = 1e5
_ASIDE = 1e-4
"""Micrometers by which points are moved: centers of bins may lie on the border of two hexagons, and
rounding must not decide."""


@dataclass(frozen=True)
class Tiling:
    """Squares, or places of a hexagonal grid, numbered by row and column.

    On the hexagonal grid row and column are those of a Visium array: the columns of a row are all
    even or all odd, and half a pitch apart.
    """

    name: str
    size_um: float
    """Side of a square, or distance of neighbors on the hexagonal grid."""
    hexagonal: bool = False
    reach_um: float = np.inf
    """Distance from the center up to which a point is inside."""

    @classmethod
    def of(cls, to: str | float) -> Self:
        """Read ``"spots"``, ``"hexagons"``, or the side of squares: ``"16um"`` or 16.

        Raises
        ------
        InputError
            It is something else.
        """
        if to == "spots":
            return cls("spots", PITCH_UM, True, SPOT_UM / 2)
        if to == "hexagons":
            return cls("hexagons", PITCH_UM, True)
        written = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:um|µm|μm)?\s*", str(to), re.IGNORECASE)
        size = float(written[1]) if written and not isinstance(to, bool) else 0.0
        if not 0 < size <= _LARGEST:
            raise InputError(
                f"to={to!r}: give the side of larger bins in micrometers, such as '16um', or "
                "'spots' or 'hexagons'"
            )
        return cls(f"{size:g}um", size)

    @property
    def diameter_um(self) -> float:
        """Diameter of a spot, or side of a square."""
        return min(self.size_um, 2 * self.reach_um)

    def locate(self, um: Floats) -> tuple[Positions, Positions, NDArray[np.bool_]]:
        """Find row and column of the tile of each point (x and y, µm), and whether it has one."""
        if not self.hexagonal:
            column, row = np.floor(um / self.size_um).astype(np.int64).T
            return row, column, np.ones(len(um), dtype=bool)
        x, y = (um + _ASIDE).T / self.size_um
        even = 2 * np.rint(y / (2 * _ROW))
        odd = 2 * np.rint((y / _ROW - 1) / 2) + 1
        at_even, at_odd = np.rint(x), np.rint(x - 0.5) + 0.5
        far_even = (x - at_even) ** 2 + (y - even * _ROW) ** 2
        far_odd = (x - at_odd) ** 2 + (y - odd * _ROW) ** 2
        nearer = far_odd < far_even
        row = np.where(nearer, odd, even).astype(np.int64)
        column = np.where(nearer, 2 * at_odd, 2 * at_even).astype(np.int64)
        inside = np.minimum(far_even, far_odd) <= (self.reach_um / self.size_um) ** 2
        return row, column, inside

    def centers(self, row: Positions, column: Positions) -> Floats:
        """Compute the center of tiles, x and y in micrometers."""
        if self.hexagonal:
            return self.size_um * np.column_stack([column / 2, row * _ROW])
        return self.size_um * (np.column_stack([column, row]).astype(np.float64) + 0.5)

    def names(self, row: Positions, column: Positions, *, on_array: bool) -> list[str]:
        """Name tiles; squares on the array of a slide as Space Ranger names bins."""
        if on_array and not self.hexagonal and self.size_um in range(1, 1000):
            form = f"s_{self.size_um:03.0f}um_{{:05d}}_{{:05d}}-1"
        else:
            form = f"{'spot' if self.hexagonal else self.name}_{{}}_{{}}"
        return [form.format(*place) for place in zip(row.tolist(), column.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the points of a section lie in micrometers, from the corner of its array if it has one.

    An array of square bins may be turned or mirrored in the image.
    """

    matrix: Floats
    """3 × 2: (x, y, 1) times this is in micrometers."""
    bin_um: float | None = None
    """Side of the bins of the array; None if the points are not on one."""

    @classmethod
    def of_bins(cls, points: Floats, row: Positions, column: Positions, bin_um: float) -> Self:
        """Place bins by their row and column."""
        fitted = _fit(points, row, column)[0]
        return cls(fitted * bin_um, bin_um)

    @classmethod
    def scaled(cls, microns_per_unit: float) -> Self:
        """Only convert the unit."""
        return cls(microns_per_unit * np.eye(3, 2))

    def __call__(self, points: Floats) -> Floats:
        """Convert coordinates to micrometers."""
        return np.asarray(points @ self.matrix[:2] + self.matrix[2])

    def inverse(self, um: Floats) -> Floats:
        """Convert micrometers to coordinates."""
        return np.asarray((um - self.matrix[2]) @ np.linalg.inv(self.matrix[:2]))

    @property
    def units_per_um(self) -> float:
        """How many units of the coordinates a micrometer is."""
        return float(abs(np.linalg.det(self.matrix[:2])) ** -0.5)


def whole(size: float) -> float:
    """Round a size to a whole number that it nearly is."""
    rounded = float(np.rint(size))
    return rounded if rounded and abs(size - rounded) < _WHOLE * size else size


def bins_of(points: Floats, array: Floats | None) -> tuple[Positions, Positions, float] | None:
    """Find row and column of square bins, and their side in the unit of the coordinates.

    Parameters
    ----------
    points
        Coordinates.
    array
        Points × 2: row and column, if the slide says so; else they are found by the coordinates.

    Returns
    -------
    None if the points are not the centers of square bins.
    """
    found = None if array is None else _checked(points, *array.T)
    if found is None:
        grid = Grid.of(points)
        if grid is None or not grid.exact or grid.hexagonal or not grid.holds(points, EXACTLY):
            return None
        found = _checked(points, *_numbered(points, grid))
    return found


def _numbered(points: Floats, grid: Grid) -> tuple[Floats, Floats]:
    """Count rows and columns of a grid, down and to the right as far as it is not turned."""
    waves, phases = grid.waves, grid.phases
    order = [0, 1] if abs(waves[0, 0]) >= abs(waves[1, 0]) else [1, 0]
    signs = np.sign([waves[order[0], 0], waves[order[1], 1]])
    signs[signs == 0] = 1
    column, row = (
        np.rint(sign * (points @ waves[at] - phases[at]) / (2 * np.pi))
        for at, sign in zip(order, signs, strict=True)
    )
    return row - row.min(), column - column.min()


def _checked(
    points: Floats, row: Floats, column: Floats
) -> tuple[Positions, Positions, float] | None:
    """Check that rows and columns place points on an array of square bins."""
    if len(points) < 3 or not (np.ptp(row) and np.ptp(column)):
        return None
    fitted, apart = _fit(points, row, column)
    if (apart <= _IN_PLACE).mean() < _MOST or abs(np.linalg.det(fitted[:2])) < 1e-300:
        return None
    right, down = np.linalg.inv(fitted[:2])
    sides = np.linalg.norm([right, down], axis=1)
    if sides.max() / sides.min() - 1 > _SQUARE or abs(right @ down) > _SQUARE * sides.prod():
        return None
    return row.astype(np.int64), column.astype(np.int64), float(np.sqrt(sides.prod()))


def _fit(
    points: Floats, row: NDArray[np.generic], column: NDArray[np.generic]
) -> tuple[Floats, Floats]:
    """Fit the centers of bins (column, row, in bins) by coordinates; also return what is left.

    Points are sorted first, so that their order does not change how sums are rounded.
    """
    order = np.lexsort((*points.T, column, row))
    places = np.column_stack([column, row]).astype(np.float64) + 0.5
    middle, span = points[order].mean(axis=0), max(float(np.ptp(points, axis=0).max()), 1e-300)
    design = np.column_stack([(points[order] - middle) / span, np.ones(len(points))])
    fitted = np.linalg.lstsq(design, places[order], rcond=None)[0]
    fitted[:2] /= span
    fitted[2] -= middle @ fitted[:2]
    apart = np.abs(points @ fitted[:2] + fitted[2] - places).max(axis=1)
    return np.asarray(fitted), np.asarray(apart)


def located(
    points: Floats, codes: Positions, frames: Mapping[int, Frame], tiling: Tiling
) -> Positions:
    """Find section, row and column of the tile of each point; the section is -1 outside all."""
    found = np.zeros((len(points), 3), dtype=np.int64)
    found[:, 0] = -1
    for code, frame in frames.items():
        own = np.flatnonzero(codes == code)
        row, column, inside = tiling.locate(frame(points[own]))
        kept = own[inside]
        found[kept, 0], found[kept, 1], found[kept, 2] = code, row[inside], column[inside]
    return found
