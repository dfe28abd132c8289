"""Find the tables of a SpatialData folder, and write results into one of them.

The table is rewritten beside itself and exchanged at the end; images and other elements are not
touched.
"""

import ctypes
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._keys import PROVENANCE, SPATIAL
from sagefm._strays import is_stray, temporary_name
from sagefm._text import few, numbered
from sagefm._uns import table as mapping
from sagefm._uns import text

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_ELEMENTS = ("images", "labels", "points", "shapes")
_TABLES = ("tables", "table")  # the second in SpatialData before 0.1
_METADATA = (".zgroup", "zarr.json", ".zattrs", ".zarray", ".zmetadata")
_WORK = ".sagefm-"
"""Start of the name of the folder in which a table is rewritten."""
_OLD = "old-"
"""Start of the name of the old table, where it cannot be exchanged in one step."""


@dataclass(frozen=True)
class TableFolder:
    """A table of a SpatialData folder.

    Attributes
    ----------
    root
        The SpatialData folder.
    name
        The table.
    path
        Its folder, a zarr group with an AnnData.
    """

    root: Path
    name: str
    path: Path


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group, from its content."""
    return any((folder / name).exists() for name in _METADATA)


def is_spatialdata(folder: Path) -> bool:
    """Whether a folder is a SpatialData, from its content."""
    if not os.path.isdir(folder):  # noqa: PTH112 - never an error, whatever the name
        return False
    if not (folder.name.lower().endswith(".zarr") or is_zarr(folder)):
        return False
    if any((folder / name).is_dir() for name in ("obs", "mod")):  # AnnData and MuData
        return False
    tables = (entry for name in _TABLES for entry in folders(folder / name))
    elements = (entry for name in _ELEMENTS for entry in folders(folder / name))
    return any((entry / "obs").is_dir() for entry in tables) or any(elements)


def folders(path: Path) -> list[Path]:
    """List the folders in a folder that are not hidden; none if there is no such folder."""
    entries = sorted(path.iterdir()) if path.is_dir() else []
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def find_table(path: Path, table: str | None = None) -> TableFolder | None:
    """Find the table that a path names: a SpatialData folder, or a table in it.

    Parameters
    ----------
    path
        Any path.
    table
        Which one, if the folder has several.

    Returns
    -------
    None if the path is no SpatialData.

    Raises
    ------
    InputError
        There is no table, no such table, or there are several.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link to a table stays where it is
    if path.name in _TABLES and is_spatialdata(path.parent):
        path = path.parent
    within = path.parent.name in _TABLES and is_spatialdata(path.parent.parent)
    root = path.parent.parent if within else path
    if not is_spatialdata(root):
        return None
    _restore(root)
    if within and not is_zarr(path):
        return None
    if within:
        if table not in (None, path.name):
            raise InputError(f"is the table {path.name!r}, not {table!r}; name the folder above it")
        return TableFolder(root, path.name, path)
    found = folders(path / "tables") or folders(path / "table")
    example = str(found[0]) if found else ""
    name = choose_table([entry.name for entry in found], table, example=example)
    return next(TableFolder(path, name, entry) for entry in found if entry.name == name)


def choose_table(names: list[str], table: str | None, *, example: str = "") -> str:
    """Choose a table of a SpatialData by its name, or the only one.

    Raises
    ------
    InputError
        There is no table, no such table, or there are several.
    """
    if not names:
        raise InputError("is a SpatialData without a table; add one with the counts of its spots")
    if table is None and len(names) > 1:
        such = f"name one, such as {example}" if example else f"pass table={names[0]!r}"
        raise InputError(f"holds {len(names)} tables ({few(names, 20)}); {such}")
    if table is not None and table not in names:
        raise InputError(f"has no table {table!r}; the tables are: {few(names, 20)}")
    return names[0] if table is None else table


# --- results ---


@dataclass(frozen=True)
class TableResults:
    """What sagefm computed for a slide, with a value for each row of a table."""

    obs: dict[str, "pd.Series[Any]"]
    obsm: dict[str, Any]
    uns: dict[str, Any]


def results_for(
    slide: "AnnData", obs: "pd.DataFrame", attributes: object, *, has_places: bool
) -> TableResults:
    """Collect the results of a slide for the table it was read from.

    Parameters
    ----------
    slide
        A slide with results: columns of ``obs``, and keys of ``obsm`` and ``uns``, that have
        sagefm in their name.
    obs, attributes
        ``obs`` and ``uns["spatialdata_attrs"]`` of the table.
    has_places
        Whether the table has coordinates; if not, those of the slide are a result too.

    Returns
    -------
    Rows that the slide lacks have missing values.

    Raises
    ------
    InputError
        The slide has no results, or a spot that the table lacks.
    """
    rows = _rows(slide, obs, attributes)
    columns = {key: _for_rows(slide.obs[key], rows, obs.index) for key in _computed(slide.obs)}
    keys = _computed(slide.obsm)
    uns = {key: slide.uns[key] for key in _computed(slide.uns)}
    # How it was read is not recorded: the table still has all spots and genes.
    uns[PROVENANCE] = {k: v for k, v in mapping(uns.get(PROVENANCE)).items() if k != "read"}
    if not (columns or keys or uns[PROVENANCE]):
        raise InputError("the slide has no results of sagefm; compute some first")
    keys += [SPATIAL] if SPATIAL in slide.obsm and not has_places else []
    return TableResults(
        columns, {key: _for_rows(slide.obsm[key], rows, obs.index) for key in keys}, uns
    )


def _computed(slot: Any) -> list[str]:
    return [key for key in slot if isinstance(key, str) and "sagefm" in key.lower()]


def _rows(slide: "AnnData", obs: "pd.DataFrame", attributes: object) -> NDArray[np.int64]:
    """Find the spot of each row of a table, -1 where there is none; by instance if it has those."""
    keys = [text(mapping(attributes).get(f"{name}_key")) for name in ("region", "instance")]
    if not all(key in table for key in keys for table in (obs, slide.obs)):
        own, theirs = slide.obs_names, obs.index
    else:
        own, theirs = (_pairs(table, keys) for table in (slide.obs, obs))
        if not (own.is_unique and theirs.is_unique):
            own, theirs = slide.obs_names, obs.index
    if not (own.is_unique and theirs.is_unique):
        raise InputError("the table has rows with the same name; give each row its own")
    if len(lacking := own.difference(theirs)):
        raise InputError(
            f"the table lacks {numbered(len(lacking), 'spot')} of the slide ({few(lacking)}); "
            "name the table that the slide was read from"
        )
    return np.asarray(own.get_indexer(theirs), dtype=np.int64)


def _pairs(table: "pd.DataFrame", keys: list[str]) -> "pd.Index[str]":
    import pandas as pd

    region, instance = (table[key].astype(str).tolist() for key in keys)
    return pd.Index([f"{a}: {b}" for a, b in zip(region, instance, strict=True)], dtype=object)


def _for_rows(values: Any, rows: NDArray[np.int64], index: "pd.Index") -> Any:
    """Take rows of a column, table or array; those at -1 are missing."""
    import pandas as pd

    missing = bool((rows < 0).any())
    if isinstance(values, pd.Series | pd.DataFrame):
        kind = getattr(values, "dtype", None)
        if missing and isinstance(kind, np.dtype) and kind.kind in "biu":
            values = values.astype("boolean" if kind.kind == "b" else "Int64")
        return values.reset_index(drop=True).reindex(rows).set_axis(index, axis=0)
    dense = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    taken = dense[rows]
    if missing:
        taken = taken.astype(np.result_type(taken.dtype, np.float32))
        taken[rows < 0] = np.nan
    return taken


def write_results(slide: "AnnData", target: TableFolder) -> None:
    """Write the results of a slide into a table of a SpatialData folder.

    The complete old table or the complete new one is there at any time.

    Raises
    ------
    InputError
        As :func:`results_for`.
    """
    import zarr

    with _work_folder(target) as work, warnings.catch_warnings():
        # What anndata and zarr will change, and that consolidated metadata are no part of zarr v3.
        for begins in ("zarr v3 autosharding", "Writing zarr v2", "Consolidated metadata"):
            warnings.filterwarnings("ignore", begins, UserWarning)
        new = work / "table"
        # Only metadata are changed in place; a result that is replaced is removed first.
        shutil.copytree(target.path, new, copy_function=_link)
        try:
            _add_results(slide, new)
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:  # what a damaged table makes of it has no limit
            raise InputError(f"the table cannot be written ({error}); copy it again") from error
        if _is_consolidated(new):
            zarr.consolidate_metadata(new)
        _exchange(new, target.path)
        _update_root(target, work)


def _add_results(slide: "AnnData", folder: Path) -> None:
    """Add the results of a slide to an AnnData in zarr."""
    import zarr
    from anndata.io import read_elem, write_elem

    group = zarr.open_group(folder, mode="r+", use_consolidated=False)
    obs = read_elem(group["obs"])
    attributes = read_elem(group["uns"]).get("spatialdata_attrs") if "uns" in group else None
    places = "obsm" in group and SPATIAL in group["obsm"]
    results = results_for(slide, obs, attributes, has_places=places)
    for name, column in results.obs.items():
        write_elem(group["obs"], name, column._values)
    order = list(dict.fromkeys([*map(str, obs.columns), *results.obs]))
    group["obs"].attrs["column-order"] = order
    for slot in ("obsm", "uns"):
        if slot not in group:
            write_elem(group, slot, {})
        for key, values in getattr(results, slot).items():
            write_elem(group[slot], key, values)


@contextmanager
def _work_folder(target: TableFolder) -> Iterator[Path]:
    """Make a folder on the disk of a SpatialData; remove it, and those of killed processes."""
    for entry in target.root.glob(f"{_WORK}*"):
        if is_stray(entry, entry.name.removeprefix(_WORK)):
            shutil.rmtree(entry, ignore_errors=True)
    work = target.root / f"{_WORK}{temporary_name()}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """Copy metadata, and link to all other files: they are as large as the counts."""
    if Path(source).name not in _METADATA:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _exchange(new: Path, old: Path) -> None:
    """Exchange two folders in one step where the system can, else in two."""
    if not _exchange_at_once(new, old):
        old.rename(new.with_name(f"{_OLD}{old.name}"))
        new.rename(old)


def _restore(root: Path) -> None:
    """Put back a table of a process that was killed between the two steps of an exchange."""
    for old in root.glob(f"{_WORK}*/{_OLD}*"):
        for tables in filter(Path.is_dir, (root / name for name in _TABLES)):
            with suppress(OSError):
                place = tables / old.name.removeprefix(_OLD)
                if not place.exists():
                    old.rename(place)


def _exchange_at_once(a: Path, b: Path) -> bool:
    names = [os.fsencode(path) for path in (a, b)]
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, 2) == 0)
        return bool(library.renameat2(-100, names[0], -100, names[1], 2) == 0)
    return False


def _is_consolidated(group: Path) -> bool:
    if (group / ".zmetadata").is_file():
        return True
    file = group / "zarr.json"
    return file.is_file() and bool(json.loads(file.read_text()).get("consolidated_metadata"))


def _update_root(target: TableFolder, work: Path) -> None:
    """Renew what the consolidated metadata of the whole say about a table, if there are any."""
    if not _is_consolidated(target.root):
        return
    file = target.root / ".zmetadata"
    file = file if file.is_file() else target.root / "zarr.json"
    whole = json.loads(file.read_text())
    entries = whole["metadata" if file.name == ".zmetadata" else "consolidated_metadata"]
    entries = entries if file.name == ".zmetadata" else entries["metadata"]
    prefix = target.path.relative_to(target.root).as_posix()
    kept = {k: v for k, v in entries.items() if k != prefix and not k.startswith(f"{prefix}/")}
    entries.clear()
    entries.update({**kept, **dict(_metadata(target))})
    renewed = work / file.name
    renewed.write_text(json.dumps(whole, indent=2))
    renewed.replace(file)


def _metadata(target: TableFolder) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the metadata of a table as consolidated metadata have them."""
    names = ("zarr.json",) if (target.path / "zarr.json").is_file() else _METADATA
    for file in sorted(target.path.rglob("*")):
        if file.name not in names or file.name == ".zmetadata":
            continue
        place = file.relative_to(target.root)
        entry = json.loads(file.read_text())
        if file.name == "zarr.json":
            entry.pop("consolidated_metadata", None)
            place = place.parent
        yield place.as_posix(), entry
