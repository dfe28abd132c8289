"""The elements of a SpatialData folder, each read by itself and only when it is needed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._spatialdata import folders
from sagefm._text import few
from sagefm.pp.container import require_files, require_stored
from sagefm.pp.spatialdata._affine import matrices
from sagefm.pp.spatialdata._elements import (
    Instances,
    Raster,
    of_labels,
    of_points,
    of_shapes,
)
from sagefm.pp.tenx import unreadable

_READING = "reading the elements of a SpatialData"


class StoredElements:
    """The elements of a SpatialData folder of any version."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> dict[str, str]:
        """Map each shapes, labels and points to which of the three it is."""
        kinds = ("points", "labels", "shapes")
        return {entry.name: kind for kind in kinds for entry in folders(self._root / kind)}

    def instances(self, name: str, wanted: pd.Index) -> Instances:
        """Get the instances of an element, at least the wanted ones that it has."""
        kind = self.names()[name]
        folder = self._root / kind / name
        try:
            require_files(folder)
            match kind:
                case "shapes":
                    return of_shapes(_shapes(folder), matrices(_transformations(folder)))
                case "points":
                    return of_points(_points(folder), matrices(_transformations(folder)))
            return of_labels(_raster(folder), wanted)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # what a damaged folder makes of it has no limit
            raise InputError(unreadable(f"{kind}/{name}", error)) from error

    def images(self, notes: list[str]) -> Iterator[Raster]:
        """Iterate over the images; one that cannot be read is noted."""
        for folder in folders(self._root / "images"):
            try:
                require_files(folder)
                yield _raster(folder)
            except Exception as error:  # noqa: BLE001 - as above
                notes.append(f"left out: {unreadable(f'images/{folder.name}', error)}")


def _attributes(folder: Path) -> Mapping[str, Any]:
    import zarr

    return dict(zarr.open_group(folder, mode="r", use_consolidated=False).attrs.asdict())


def _transformations(folder: Path) -> list[Any]:
    return list(_attributes(folder)["coordinateTransformations"])


def _raster(folder: Path) -> Raster:
    import zarr

    group = zarr.open_group(folder, mode="r", use_consolidated=False)
    attributes = group.attrs.asdict()
    scales = attributes.get("ome", attributes)["multiscales"][0]
    axes = "".join(axis["name"] for axis in scales["axes"])
    levels = [group[entry["path"]] for entry in scales["datasets"]]
    levels.sort(key=lambda level: -int(np.prod(level.shape)))
    if not levels or {len(level.shape) for level in levels} != {len(axes)}:
        raise InputError(f"{folder.parent.name}/{folder.name} has no scales of the axes {axes}")
    for level in levels:
        require_stored(f"{folder.parent.name}/{folder.name}", level, folder)
    return Raster(folder.name, axes, levels, matrices(scales["coordinateTransformations"]))


def _shapes(folder: Path) -> Any:
    file = folder / "shapes.parquet"
    if not file.is_file():
        return _shapes_of_0_1(folder)
    shapely = require("shapely", "spatialdata", _READING)
    parquet = require("pyarrow.parquet", "spatialdata", _READING)
    schema = parquet.read_schema(file)
    kept = [name for name in ("geometry", "radius") if name in schema.names]
    if "binary" not in str(schema.field("geometry").type):  # the other encoding: GeoArrow
        geopandas = require("geopandas", "spatialdata", _READING)
        return geopandas.read_parquet(file, columns=kept)
    frame = parquet.read_table(file, columns=kept, use_pandas_metadata=True).to_pandas()
    frame["geometry"] = shapely.from_wkb(frame["geometry"].to_numpy(dtype=object))
    return frame


def _shapes_of_0_1(folder: Path) -> Any:
    """Read shapes of SpatialData before 0.2, which are arrays."""
    import zarr

    shapely = require("shapely", "spatialdata", _READING)
    group = zarr.open_group(folder, mode="r", use_consolidated=False)
    kind = shapely.GeometryType(group.attrs["spatialdata_attrs"]["geos"]["type"])
    offsets = tuple(np.ravel(group[key][:]) for key in sorted(group) if key.startswith("offset"))
    geometry = shapely.from_ragged_array(kind, group["coords"][:], offsets or None)
    columns = {"geometry": geometry}
    if "radius" in group:
        columns["radius"] = group["radius"][:]
    return pd.DataFrame(columns, index=pd.Index(group["Index"][:]))


def _points(folder: Path) -> Any:
    parquet = require("pyarrow.parquet", "spatialdata", _READING)
    file = folder / "points.parquet"
    try:
        return parquet.read_table(file, columns=["x", "y"], use_pandas_metadata=True).to_pandas()
    except FileNotFoundError as error:
        held = few(entry.name for entry in folder.iterdir())
        raise InputError(f"points/{folder.name} has no points.parquet, but {held}") from error
