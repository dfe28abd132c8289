"""Find where the rows of a table are, and which images lie under them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm._uns import table, text, texts
from sagefm.pp.labels import text_of
from sagefm.pp.spatialdata._affine import Matrix, factor_of, is_scaling, moved
from sagefm.pp.spatialdata._elements import Elements, Instances, Raster

_UNDER = 0.5
"""Fraction of the spots that an image must lie under."""
_FINER = 1.01
"""A coordinate system is finer than the pixels of an image by more than rounding."""


@dataclass(frozen=True)
class Placed:
    """Where the spots of a table are.

    Attributes
    ----------
    rows
        Rows of the table that are spots with a place.
    xy
        Rows × 2: x = pixel column, y = pixel row. None if the table has its own.
    libraries
        ``uns["spatial"]``.
    key
        Column of ``obs`` with the region of each spot if there are several.
    """

    rows: NDArray[np.int64]
    xy: NDArray[np.float64] | None
    libraries: dict[str, Any]
    key: str | None


@dataclass(frozen=True)
class _Frame:
    """The pixels that coordinates are given in: a matrix, and what it leads to."""

    matrix: Matrix
    name: str
    images: list[tuple[Raster, Matrix]]


def place(
    elements: Elements,
    obs: pd.DataFrame,
    attributes: object,
    region: str | None,
    notes: list[str],
    *,
    has_places: bool,
) -> Placed:
    """Find where the rows of a table are.

    Parameters
    ----------
    elements
        Those of its SpatialData.
    obs, attributes
        ``obs`` and ``uns["spatialdata_attrs"]`` of the table.
    region
        Only this region; all if None.
    notes
        What is assumed or left out is added.
    has_places
        Whether the table has coordinates of its own.

    Raises
    ------
    InputError
        The table has no such region, or one without an element or without matching instances.
    """
    every = np.arange(len(obs), dtype=np.int64)
    if not table(attributes):
        if region is not None:
            raise InputError(f"the table annotates nothing, so it has no region {region!r}")
        return Placed(every, None, {}, None)
    key, instance = (text(table(attributes).get(f"{name}_key")) for name in ("region", "instance"))
    if absent := [name for name in (key, instance) if name not in obs]:
        raise InputError(
            f"uns['spatialdata_attrs'] names the columns {key!r} and {instance!r}, and obs has no "
            f"{absent[0]!r}; correct it (spatialdata.models.TableModel.parse)"
        )
    owner = text_of(obs[key]).to_numpy(dtype=object)
    present = list(dict.fromkeys(owner[~pd.isna(owner)]))
    chosen = _chosen(present, table(attributes).get("region"), region)
    known = elements.names()
    missing = [name for name in chosen if name not in known]
    within = np.flatnonzero(np.isin(owner, chosen))
    several = key if len(chosen) > 1 else None
    if missing and has_places and len(missing) == len(chosen):
        notes.append(f"the coordinates are those of obsm['spatial']: there is no {few(missing)}")
        return Placed(within, None, {}, several)
    if missing:
        raise InputError(
            f"the table annotates {few(missing)}, which is not among the shapes, labels and points "
            f"({few(known, 20) or 'none'}); add it, or pass region= one that is there"
        )
    placed = [
        _place_region(elements, name, present, np.flatnonzero(owner == name), obs[instance], notes)
        for name in chosen
    ]
    rows = np.concatenate([part.rows for part in placed])
    xy = np.concatenate([part.xy for part in placed if part.xy is not None])
    order = np.argsort(rows)
    libraries = {name: held for part in placed for name, held in part.libraries.items()}
    if len(lost := every[pd.isna(owner)]) and region is None:
        notes.append(f"{numbered(len(lost), 'row')} of the table without a region left out")
    return Placed(rows[order], xy[order], libraries, several)


def _chosen(present: list[str], declared: object, region: str | None) -> list[str]:
    """Choose the regions to read: all that have rows, or the one that is named."""
    if region is not None and region not in present:
        listed = f"the regions are: {few(present or texts(declared), 20) or 'none'}"
        raise InputError(f"the table has no rows of the region {region!r}; {listed}")
    if not present:
        raise InputError("the table has no rows of any region; add the counts of its spots")
    return present if region is None else [region]


def _place_region(
    elements: Elements,
    name: str,
    others: list[str],
    rows: NDArray[np.int64],
    instance: "pd.Series[Any]",
    notes: list[str],
) -> Placed:
    wanted = pd.Index(instance.iloc[rows])
    found = elements.instances(name, wanted)
    if not found.systems:
        raise InputError(f"{found.what} {name!r} has no transformation to a coordinate system")
    at, places = _match(wanted, found, name, notes)
    xy = found.xy[places]
    frame = _frame(found, xy, _of_same_sample(list(elements.images(notes)), name, others))
    size = None if found.diameter is None else found.diameter * factor_of(frame.matrix)
    library = _library(frame, size, notes)
    notes.append(f"the coordinates are the centers of the {found.what} {name!r} in {frame.name}")
    return Placed(rows[at], moved(xy, frame.matrix), {name: library} if library else {}, None)


def _match(
    wanted: pd.Index, found: Instances, name: str, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the wanted instances that have a center: their places among them and in the element."""
    ids = found.ids
    at = ids.get_indexer(wanted) if ids.is_unique else np.full(len(wanted), -1)
    if (at < 0).all():  # numbers may be stored as text
        ids, wanted = (pd.Index(index.astype(str)) for index in (ids, wanted))
        if not ids.is_unique:
            twice = few(ids[ids.duplicated()].unique())
            raise InputError(f"{found.what} {name!r} has instances more than once ({twice})")
        at = ids.get_indexer(wanted)
    matched = at >= 0
    if not matched.any():
        raise InputError(
            f"none of the {numbered(len(wanted), 'row')} of the table (instances {few(wanted)}) is "
            f"in the {found.what} {name!r} ({few(ids) or 'empty'}); they are not of one sample"
        )
    matched[matched] = np.isfinite(found.xy[at[matched]]).all(axis=1)
    if lost := int((~matched).sum()):
        notes.append(
            f"{numbered(lost, 'row')} of the table without a place in the {found.what} {name!r} "
            f"left out ({few(wanted[~matched])})"
        )
    if not matched.any():
        raise InputError(f"no center of the {found.what} {name!r} is a number; write it again")
    return np.flatnonzero(matched), at[matched].astype(np.int64)


def _of_same_sample(images: list[Raster], name: str, others: list[str]) -> list[Raster]:
    """Select the images whose names start as that of the region, if there are any: V1_spots.

    If not, those that start as the name of another region are of another sample.
    """
    starts = {other: re.split(r"[_\W]", other)[0] for other in (*others, name)}
    named = [(image, re.split(r"[_\W]", image.name)[0]) for image in images]
    own = [image for image, start in named if start == starts[name]]
    return own or [image for image, start in named if start not in starts.values()]


def _frame(found: Instances, xy: NDArray[np.float64], images: list[Raster]) -> _Frame:
    """Choose the pixels to give coordinates in: those of the image with the highest resolution.

    A coordinate system that is finer than all images is taken instead: the full image was left
    out, as that of Visium often is.
    """
    systems = found.systems
    default = "global" if "global" in systems else max(systems, key=lambda k: factor_of(systems[k]))
    under = [(image, matrix) for image in images for matrix in _onto(image, found, xy)[:1]]
    whole = _Frame(systems[default], f"the coordinate system {default!r}", under)
    if not under:
        return whole
    finest, matrix = max(under, key=lambda pair: factor_of(pair[1]))
    finer = factor_of(systems[default]) > _FINER * factor_of(matrix)
    if finer and any(_factor(pair, systems[default]) is not None for pair in under):
        return whole
    return _Frame(matrix, f"pixels of the image {finest.name!r}", under)


def _onto(image: Raster, found: Instances, xy: NDArray[np.float64]) -> list[Matrix]:
    """Get the matrices from an element to the pixels of an image that lies under it."""
    matrices = []
    for system in (name for name in found.systems if name in image.systems):
        back = image.systems[system]
        if abs(np.linalg.det(back)) < 1e-12:
            continue
        matrix: Matrix = np.linalg.solve(back, found.systems[system]).astype(np.float64)
        points = moved(xy, matrix)
        if ((points >= 0) & (points <= image.size)).all(axis=1).mean() >= _UNDER:
            matrices.append(matrix)
    return matrices


def _factor(pair: tuple[Raster, Matrix], frame: Matrix) -> float | None:
    """Get the scale of an image in a frame; None if it is turned or shifted in it."""
    image, matrix = pair
    if abs(np.linalg.det(frame)) < 1e-12:
        return None
    onto = matrix @ np.linalg.inv(frame)
    extent = max(image.size) / max(factor_of(onto), 1e-12)
    return factor_of(onto) if is_scaling(onto, extent) else None


def _library(frame: _Frame, diameter: float | None, notes: list[str]) -> Mapping[str, Any]:
    """Take the image that shows most, as scanpy stores it in ``uns["spatial"]``."""
    fitting = [(pair[0], _factor(pair, frame.matrix)) for pair in frame.images]
    turned = [image.name for image, factor in fitting if factor is None]
    if turned:
        notes.append(f"left out: images {few(turned)}, which are turned or shifted")
    shown = [(image, factor) for image, factor in fitting if factor is not None]
    if not shown:
        return {}
    # Color images before stains, and then the largest.
    image, factor = max(shown, key=lambda it: (it[0].n_channels in (3, 4), it[0].preview_side))
    pixels, scale = image.preview()
    factors = {"tissue_hires_scalef": factor * scale}
    factors |= {} if diameter is None else {"spot_diameter_fullres": diameter}
    return {"images": {"hires": pixels}, "scalefactors": factors}
