"""Find how many micrometers a unit of the coordinates is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sagefm._keys import PITCH
from sagefm._uns import libraries, own_library, positive, scale_factor
from sagefm.pp.grid import Grid

if TYPE_CHECKING:
    from anndata import AnnData

_OF_VISIUM = 0.45, 0.75
"""Diameter of a spot of Visium over the distance of its spots: 0.55, but Space Ranger writes the
diameter of 65 µm."""
_SAMPLE = 1000
"""Spots whose nearest ones are looked at."""
VISIUM_UM = 100.0
"""Distance of the spots of Visium."""


def usual_pitch(xy: NDArray[np.float64], codes: NDArray[np.int64]) -> float | None:
    """Get the median distance to the nearest spot of the same section; None without any."""
    distances = [
        np.asarray(cKDTree(points).query(points, 2)[0])[:, 1]
        for points in (xy[codes == code] for code in np.unique(codes))
        if len(points) > 1
    ]
    apart = np.concatenate([np.empty(0), *distances])
    apart = apart[apart > 0]  # spots at the same place have no pitch
    return float(np.median(apart)) if apart.size else None


def spacing_um(slide: "AnnData", xy: NDArray[np.float64], codes: NDArray[np.int64]) -> float | None:
    """Estimate the distance of neighboring spots in micrometers, by some spots of a section."""
    points = xy[codes == codes[0]]
    if len(points) < 2:
        return None
    some = points[:: -(-len(points) // _SAMPLE)]
    apart = np.asarray(cKDTree(points).query(some, 2)[0])[:, 1]
    pitch = float(np.median(apart))
    scale = microns_per_unit(slide, points, pitch)
    return pitch * scale if pitch and scale else None


def microns_per_unit(
    slide: "AnnData", points: NDArray[np.float64], pitch: float | None
) -> float | None:
    """Find how many micrometers a unit of the coordinates is; None if nothing says so.

    Scale factors of Space Ranger say it (``microns_per_pixel``, or the size of a bin), else
    ``uns["spot_pitch_um"]``, else the diameter of spots on a hexagonal grid, as only Visium has it.

    Parameters
    ----------
    slide
        A slide or a section of it.
    points
        Its coordinates.
    pitch
        The usual distance to the nearest spot in the units of the coordinates, if it is known.
    """
    found = own_library(slide) or libraries(slide)
    stated = {scale for library in found.values() if (scale := _stated(library)) is not None}
    if len(stated) == 1:
        return stated.pop()
    if not pitch:
        return None
    if known := positive(slide.uns.get(PITCH)):
        return known / pitch
    low, high = _OF_VISIUM
    diameters = [scale_factor(library, "spot_diameter_fullres") for library in found.values()]
    if len(diameters) == 1 and diameters[0] and low <= diameters[0] / pitch <= high:
        grid = Grid.of(points)
        return VISIUM_UM / pitch if grid is not None and grid.hexagonal else None
    return None


def _stated(library: Mapping[str, Any]) -> float | None:
    """Get the scale that Space Ranger states."""
    if (scale := scale_factor(library, "microns_per_pixel")) is not None:
        return scale
    size, pixels = (scale_factor(library, key) for key in ("bin_size_um", "spot_diameter_fullres"))
    return size / pixels if size and pixels else None
