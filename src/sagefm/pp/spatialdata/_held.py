"""The elements of a SpatialData object."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm.pp.spatialdata._affine import Matrix
from sagefm.pp.spatialdata._elements import (
    Instances,
    Raster,
    of_labels,
    of_points,
    of_shapes,
)

_KINDS = ("points", "labels", "shapes")


def is_held(source: object) -> bool:
    """Whether something is a SpatialData object; the library is not imported to tell."""
    return any(
        kind.__name__ == "SpatialData" and kind.__module__.partition(".")[0] == "spatialdata"
        for kind in type(source).__mro__
    )


class HeldElements:
    """The elements of a SpatialData object; images and labels are computed when needed."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def names(self) -> dict[str, str]:
        """Map each shapes, labels and points to which of the three it is."""
        return {str(name): kind for kind in _KINDS for name in getattr(self._whole, kind)}

    def instances(self, name: str, wanted: pd.Index) -> Instances:
        """Get the instances of an element, at least the wanted ones that it has."""
        kind = self.names()[name]
        element = getattr(self._whole, kind)[name]
        match kind:
            case "shapes":
                return of_shapes(element, _systems(element))
            case "points":
                return of_points(element[["x", "y"]].compute(), _systems(element))
        return of_labels(_raster(name, element), wanted)

    def images(self, notes: list[str]) -> Iterator[Raster]:
        """Iterate over the images; one that cannot be used is noted."""
        for name, element in self._whole.images.items():
            try:
                yield _raster(str(name), element)
            except InputError as error:
                notes.append(f"left out: {error}")


def _systems(element: Any) -> dict[str, Matrix]:
    library = require("spatialdata.transformations", "spatialdata", "reading a SpatialData")
    axes = ("x", "y")
    return {
        str(name): np.asarray(transformation.to_affine_matrix(axes, axes), dtype=np.float64)
        for name, transformation in library.get_transformation(element, get_all=True).items()
    }


def _raster(name: str, element: Any) -> Raster:
    children = getattr(element, "children", None)
    nodes = [element] if children is None else list(children.values())
    levels = [node if hasattr(node, "dims") and hasattr(node, "data") else None for node in nodes]
    if children is not None:
        levels = [next(iter(node.ds.data_vars.values()), None) for node in nodes]
    found = [level for level in levels if level is not None]
    if not found:
        raise InputError(f"{name!r} has no scales")
    found.sort(key=lambda level: -int(np.prod(level.shape)))
    return Raster(name, "".join(map(str, found[0].dims)), found, _systems(element))
