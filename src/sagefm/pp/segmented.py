"""Read the cells of a segmentation (GeoJSON of Space Ranger 4): their centers and areas."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.pp.tenx import content, unreadable

AREA = "area_px"
"""``obs``: area of a cell in square pixels of the full image."""
_BARCODE = re.compile(r"(?:cellid_)?(\d{1,18})(?:-\d+)?")
_LARGEST = 1e9
"""Pixels; no image is larger."""
Ring = tuple[NDArray[np.float64], int]
"""Vertices × 2, and 1 for an outline or -1 for a hole."""


def is_cell(barcode: str) -> bool:
    """Whether a barcode is that of a segmented cell."""
    return barcode.startswith("cellid_") and _BARCODE.fullmatch(barcode) is not None


def read_cells(path: Path, notes: list[str]) -> pd.DataFrame:
    """Read a file of cell polygons.

    Returns
    -------
    A row per cell with a polygon, by barcode (``cellid_000000001-1``): ``area_px``, and the
    centroid of this area, ``pxl_row_in_fullres`` and ``pxl_col_in_fullres``. Holes are no part of a
    cell, and a cell may have several polygons.

    Raises
    ------
    InputError
        The file is damaged, or has a cell twice.
    """
    try:
        # Features are made small as they are parsed: the tree of a whole file would need many times
        # the size of the file.
        document = json.loads(content(path), object_hook=_compact)
    except (InputError, MemoryError):
        raise
    except (ValueError, TypeError, OSError, EOFError, RecursionError) as error:
        raise InputError(unreadable(path.name, error)) from error
    cells = document.get("features") if isinstance(document, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, tuple) for cell in cells):
        raise InputError(f"{path.name} is no FeatureCollection of cells; copy it again")
    ids = pd.Index([number for number, _ in cells], dtype=np.int64)
    if not ids.is_unique:
        repeated = ids[ids.duplicated()].unique()
        raise InputError(
            f"{path.name} has {numbered(len(repeated), 'cell')} more than once ({few(repeated)}); "
            "keep one Polygon or MultiPolygon of each"
        )
    table = _centroids([rings for _, rings in cells])
    table.index = pd.Index([f"cellid_{number:09d}-1" for number in ids], dtype=object)
    if len(empty := table.index[table[AREA].isna()]):
        notes.append(
            f"{path.name} has no polygon for {numbered(len(empty), 'cell')} ({few(empty)})"
        )
    return table.dropna()


def _compact(node: dict[str, Any]) -> Any:
    """Replace a geometry by its rings, and a feature by the number of its cell and its rings."""
    if "coordinates" in node:
        return _rings(node)
    if node.get("type") == "Feature":
        return _number(node), _checked(node.get("geometry"))
    return node


def _checked(rings: Any) -> list[Ring]:
    if rings is not None and not isinstance(rings, list):
        raise ValueError("a geometry has no coordinates")
    return rings or []


def _rings(geometry: dict[str, Any]) -> list[Ring]:
    kind, polygons = geometry.get("type"), geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a geometry is a {str(kind)[:40]}, not a Polygon")
    rings = []
    for polygon in [polygons] if kind == "Polygon" else polygons:
        for place, ring in enumerate(polygon):
            if not ring:
                continue
            vertices = np.asarray(ring, dtype=np.float64)
            if vertices.ndim != 2 or vertices.shape[1] not in (2, 3):
                raise ValueError("a polygon has vertices that are not x and y")
            if not (np.abs(vertices) < _LARGEST).all():
                raise ValueError("a polygon has vertices that are not in pixels")
            rings.append((vertices[:, :2], -1 if place else 1))
    return rings


def _number(feature: dict[str, Any]) -> int:
    """Get the number of the cell of a feature."""
    properties = feature.get("properties")
    number = properties.get("cell_id") if isinstance(properties, dict) else None
    number = feature.get("id") if number is None else number
    match = _BARCODE.fullmatch(str(number).removesuffix(".0"))
    if match is None:
        raise ValueError(f"a feature has no cell_id, or {str(number)[:40]!r}")
    return int(match[1])


def _centroids(cells: list[list[Ring]]) -> pd.DataFrame:
    """Compute area and centroid of each cell from its rings; NaN for a cell without any."""
    columns = [AREA, "pxl_row_in_fullres", "pxl_col_in_fullres"]
    n_rings = np.array([len(rings) for rings in cells], dtype=np.int64)
    if not n_rings.sum():
        return pd.DataFrame(np.nan, index=range(len(cells)), columns=columns)
    lengths = np.array([len(ring) for rings in cells for ring, _ in rings])
    sign = np.array([sign for rings in cells for _, sign in rings])
    vertices = np.concatenate([ring for rings in cells for ring, _ in rings])
    starts = np.cumsum(lengths) - lengths
    following = np.arange(1, len(vertices) + 1)
    following[starts + lengths - 1] = starts  # the last vertex is followed by the first
    # Relative to a vertex of the ring: far from the origin, products would lose digits.
    here = vertices - np.repeat(vertices[starts], lengths, axis=0)
    after = here[following]
    cross = here[:, 0] * after[:, 1] - after[:, 0] * here[:, 1]
    double_area = np.add.reduceat(cross, starts)
    moment = np.add.reduceat((here + after) * cross[:, None], starts, axis=0)
    area = sign * np.abs(double_area) / 2
    flat = double_area == 0
    center = vertices[starts] + moment / np.where(flat, 1, 3 * double_area)[:, None]
    owner = np.repeat(np.arange(len(cells)), n_rings)
    total = np.bincount(owner, area, len(cells))
    low, high = _boxes(vertices, starts, owner, len(cells))
    weighted = [np.bincount(owner, area * center[:, axis], len(cells)) for axis in (0, 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        xy = np.stack(weighted, axis=1) / total[:, None]
    # Cells without an area and outlines that cross themselves have the center of their box.
    outside = ~((xy >= low) & (xy <= high)).all(axis=1)
    xy[outside] = (low + high)[outside] / 2
    total = np.where(n_rings > 0, np.maximum(total, 0), np.nan)
    return pd.DataFrame(np.column_stack([total, xy[:, 1], xy[:, 0]]), columns=columns)


def _boxes(
    vertices: NDArray[np.float64], starts: NDArray[np.int64], owner: NDArray[np.int64], n_cells: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Get the lowest and highest coordinates of each cell; NaN for a cell without rings."""
    low, high = np.full((n_cells, 2), np.nan), np.full((n_cells, 2), np.nan)
    np.fmin.at(low, owner, np.minimum.reduceat(vertices, starts, axis=0))
    np.fmax.at(high, owner, np.maximum.reduceat(vertices, starts, axis=0))
    return low, high
