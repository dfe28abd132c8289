"""SpatialData in and out: the slide of a table, and its results in the table again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._files import writing
from sagefm._spatialdata import (
    TableFolder,
    choose_table,
    find_table,
    folders,
    results_for,
    write_results,
)
from sagefm._text import few
from sagefm._uns import table as mapping
from sagefm._uns import text
from sagefm.pp.anndata_file import read_zarr
from sagefm.pp.container import require_files, survey_zarr
from sagefm.pp.spatialdata._elements import Elements
from sagefm.pp.spatialdata._held import HeldElements, is_held
from sagefm.pp.spatialdata._placing import Placed, place
from sagefm.pp.spatialdata._stored import StoredElements

if TYPE_CHECKING:
    from spatialdata import SpatialData

__all__ = ["is_held", "open_held", "open_stored", "write_back"]

_ATTRIBUTES = "spatialdata_attrs"


def _placed(found: TableFolder, region: str | None, notes: list[str]) -> Placed:
    """Find the spots of a table on disk without reading their counts."""
    import zarr
    from anndata.io import read_elem

    require_files(found.path)
    survey_zarr(found.path, found.path, in_memory=False)
    group = zarr.open_group(found.path, mode="r", use_consolidated=False)
    obs = read_elem(group["obs"])
    has_places = "obsm" in group and _keys.SPATIAL in group["obsm"]
    attributes: object = None
    if "uns" in group and _ATTRIBUTES in group["uns"]:
        attributes = read_elem(group["uns"][_ATTRIBUTES])
    elements = StoredElements(found.root)
    return _place(elements, obs, attributes, region, notes, has_places=has_places)


def _place(
    elements: Elements,
    obs: pd.DataFrame,
    attributes: object,
    region: str | None,
    notes: list[str],
    *,
    has_places: bool,
) -> Placed:
    """Place the rows of a table; without the libraries for it, by its own coordinates."""
    try:
        return place(elements, obs, attributes, region, notes, has_places=has_places)
    except InputError as error:
        lacking = isinstance(error.__cause__, ImportError)
        if not (lacking and has_places and region is None):
            raise
        notes.append(f"the coordinates are those of obsm['spatial']: {error}")
        key = text(mapping(attributes).get("region_key"))
        several = key in obs and obs[key].nunique() > 1
        return Placed(np.arange(len(obs), dtype=np.int64), None, {}, key if several else None)


def open_stored(
    found: TableFolder,
    region: str | None,
    notes: list[str],
    opener: Callable[[Path], AnnData] = read_zarr,
) -> tuple[AnnData, str]:
    """Open the slide of a table on disk, whose AnnData `opener` opens.

    Returns
    -------
    The slide, and the ``obs`` column with the region of each spot if there are several.

    Raises
    ------
    InputError
        There is no such region, its spots have no place, or the table is damaged.
    """
    placed = _placed(found, region, notes)
    notes += _other_tables([entry.name for entry in folders(found.path.parent)], found.name)
    return _assembled(opener(found.path), placed, notes), placed.key or ""


def open_held(
    whole: "SpatialData", table: str | None, region: str | None, notes: list[str]
) -> tuple[AnnData, str]:
    """Open the slide of a SpatialData object, which is not changed; as :func:`open_stored`."""
    slide = _table_of(whole, table)
    notes += _other_tables(list(whole.tables), choose_table(list(whole.tables), table))
    attributes = slide.uns.get(_ATTRIBUTES)
    has_places = _keys.SPATIAL in slide.obsm
    elements = HeldElements(whole)
    placed = _place(elements, slide.obs, attributes, region, notes, has_places=has_places)
    return _assembled(slide, placed, notes), placed.key or ""


def _other_tables(names: list[str], table: str) -> list[str]:
    """Note the tables that are not read, but for bins of other sizes."""
    others = [name for name in names if name != table and not name.startswith("square_")]
    if not others:
        return []
    return [
        f"other tables are left out: {few(others, 8)}; sagefm.pp.add_counts adds counts of the "
        "same spots"
    ]


def _table_of(whole: Any, table: str | None) -> AnnData:
    held: AnnData = whole.tables[choose_table(list(whole.tables), table)]
    return held


def _assembled(slide: AnnData, placed: Placed, notes: list[str]) -> AnnData:
    """Copy the spots of a table, and give them their coordinates and images."""
    slide = (slide if len(placed.rows) == slide.n_obs else slide[placed.rows]).copy()
    if placed.xy is None:
        return slide
    before = slide.obsm.get(_keys.SPATIAL)
    slide.obsm[_keys.SPATIAL] = placed.xy
    if before is not None and not _equal(before, placed.xy):
        notes.append("obsm['spatial'] of the table has other coordinates and is not used")
        slide.uns.pop(_keys.SPATIAL, None)
    if placed.libraries:
        slide.uns[_keys.SPATIAL] = placed.libraries
    return slide


def _equal(before: Any, xy: Any) -> bool:
    try:
        values = np.asarray(before, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return values.shape == xy.shape and bool(np.allclose(values, xy))


def write_back(
    slide: AnnData,
    target: "SpatialData | str | os.PathLike[str]",
    *,
    table: str | None = None,
) -> None:
    """Write the results of a slide into the table of the SpatialData that it was read from.

    Results are what has sagefm in its name: columns of ``obs``, keys of ``obsm`` and ``uns``.
    Coordinates are written too if the table has none. Spots are matched by region and instance;
    those that were left out have missing values. Counts, genes and all other elements stay as they
    are.

    Parameters
    ----------
    slide
        A slide that :func:`sagefm.read` has read, with results.
    target
        The object, which is changed in memory only, or the folder: its table is rewritten beside
        the old one, which it then replaces.
    table
        Which table, if there are several.

    Raises
    ------
    InputError
        The slide has no results or is of another SpatialData, or there is no such table.

    Examples
    --------
    >>> slide = sagefm.read(sdata)  # doctest: +SKIP
    >>> sagefm.tl.domains(slide)  # doctest: +SKIP
    >>> sagefm.pp.write_back(slide, sdata)  # doctest: +SKIP
    """
    if is_held(target):
        held = _table_of(target, table)
        places = _keys.SPATIAL in held.obsm
        results = results_for(slide, held.obs, held.uns.get(_ATTRIBUTES), has_places=places)
        for name, column in results.obs.items():
            held.obs[name] = column
        for key, values in results.obsm.items():
            held.obsm[key] = values
        held.uns.update(results.uns)
        return
    path = Path(target)
    try:
        found = find_table(path, table)
        if found is None:
            raise InputError("is no SpatialData; write the slide as .h5ad instead")
        with writing(path):
            write_results(slide, found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
