"""Coordinate transformations as they are stored on disk (NGFF) → matrices."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
"""3 × 3: maps (x, y, 1)."""
_Places = dict[str, NDArray[np.float64]]
"""Coordinates of three points by axis."""


def matrices(transformations: Iterable[Mapping[str, Any]]) -> dict[str, Matrix]:
    """Map each coordinate system to the matrix of x and y that leads to it.

    Transformations of other types than identity, scale, translation, rotation, affine, mapAxis,
    sequence and byDimension are left out.
    """
    found = {}
    for entry in transformations:
        with suppress(KeyError, TypeError, ValueError, IndexError):
            found[str(entry["output"]["name"])] = _matrix(entry)
    return found


def _matrix(entry: Mapping[str, Any]) -> Matrix:
    """Follow the origin and the unit vectors."""
    places = {"x": np.array([1.0, 0.0, 0.0]), "y": np.array([0.0, 1.0, 0.0])}
    moved = _moved(entry, places)
    x, y = moved["x"], moved["y"]
    matrix = np.array([[x[0] - x[2], x[1] - x[2], x[2]], [y[0] - y[2], y[1] - y[2], y[2]]])
    if not np.isfinite(matrix).all():
        raise ValueError("the transformation is not finite")
    return np.vstack([matrix, [0, 0, 1]])


def _moved(entry: Mapping[str, Any], places: _Places) -> _Places:
    kind, inside = entry["type"], _axes(entry, "input") or list(places)
    outside = _axes(entry, "output") or inside
    taken = {axis: places.get(axis, np.zeros(3)) for axis in inside}
    match kind:
        case "identity":
            return taken
        case "scale":
            pairs = zip(inside, entry["scale"], strict=True)
            return {axis: taken[axis] * factor for axis, factor in pairs}
        case "translation":
            pairs = zip(inside, entry["translation"], strict=True)
            return {axis: taken[axis] + shift for axis, shift in pairs}
        case "affine" | "rotation":
            rows = np.asarray(entry[kind], dtype=np.float64)
            values = np.array([*taken.values(), np.ones(3)])[: rows.shape[1]]
            return dict(zip(outside, rows @ values, strict=True))
        case "mapAxis":
            return {axis: taken[entry["mapAxis"][axis]] for axis in outside}
        case "sequence":
            for part in entry["transformations"]:
                taken = _moved(part, taken)
            return taken
        case "byDimension":
            for part in entry["transformations"]:
                taken = {**taken, **_moved(part, places)}
            return taken
    raise ValueError(f"a transformation of the type {kind!r}")


def _axes(entry: Mapping[str, Any], side: str) -> list[str]:
    return [str(axis["name"]) for axis in entry.get(side, {}).get("axes", [])]


def moved(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Transform points × 2."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def factor_of(matrix: Matrix) -> float:
    """Get the factor by which lengths grow, on average."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def is_scaling(matrix: Matrix, extent: float) -> bool:
    """Whether a matrix scales both axes alike, to half a pixel over an extent."""
    rest = matrix - np.diag([factor_of(matrix)] * 2 + [1.0])
    return bool(np.abs(rest[:2, :2]).sum() * extent + np.abs(rest[:2, 2]).max() < 0.5)
