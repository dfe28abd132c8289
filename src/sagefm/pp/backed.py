"""Open an .h5ad or a zarr, and leave its counts on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset

from sagefm._errors import InputError
from sagefm._text import few
from sagefm.pp.anndata_file import quietly
from sagefm.pp.container import survey_h5, survey_zarr
from sagefm.pp.counts import Counts, find_counts, sum_duplicates
from sagefm.pp.features import feature_names, other_features
from sagefm.pp.naming import name_genes
from sagefm.pp.on_disk import CountsOnDisk, leave_on_disk, open_root

LARGE = 1 << 30
"""Bytes of counts in memory from which they stay on disk where nothing is said."""
_HEAD = 1000
"""Spots by which the place of the raw counts is found."""
_STORED = "sagefm_stored"


def is_large(path: Path) -> bool:
    """Whether the counts of an .h5ad or zarr take more than 1 GB and can be read row by row."""
    try:
        root = open_root(path)
        stored = [root[group] for group in _places(root).values()]
        by_rows = not any(map(_is_by_genes, stored)) and "_index" in root["obs"].attrs
        return by_rows and max((_size(one) for one in stored), default=0) > LARGE
    except Exception:  # noqa: BLE001 (the reader says what is wrong)
        return False


def _size(stored: Any) -> int:
    """Count the bytes that a matrix takes as compressed sparse rows."""
    return 8 * int(np.prod(stored.shape) if hasattr(stored, "shape") else stored["data"].shape[0])


def _is_by_genes(stored: Any) -> bool:
    return bool(stored.attrs.get("encoding-type") == "csc_matrix")


def open_backed(path: Path, layer: str | None, notes: list[str]) -> tuple[AnnData, str]:
    """Open an .h5ad or the zarr folder of an AnnData, and leave its counts there.

    Returns
    -------
    The slide, with genes as :func:`sagefm.read` names them, and where its counts are.

    Raises
    ------
    InputError
        It is no AnnData, or as :func:`~sagefm.pp.counts.find_counts`, or the counts cannot be read
        row by row.
    """
    where: list[str] = []

    def reader() -> AnnData:
        if path.is_dir():
            survey_zarr(path, path, in_memory=False)
        else:
            survey_h5(path, in_memory=False)
        slide, place = _opened(path, layer, notes)
        where.append(place)
        return slide

    return quietly(reader), where[0]


def _opened(path: Path, layer: str | None, notes: list[str]) -> tuple[AnnData, str]:
    root = open_root(path)
    if not {"obs", "var"} <= set(root):
        raise InputError("holds no AnnData; only an .h5ad or a .zarr can be left on disk")
    found, source = _find(path, layer, notes)
    summed = sum_duplicates(found)
    notes += [summed.note] if summed.matrix is not found.matrix else []
    names = ["obs", "obsm", "obsp", "uns"]
    if len(summed.var) == len(found.var) == _n_genes(root) and found.where != "raw":
        names += ["varm", "varp"]
    slots = {name: read_elem(root[name]) for name in names if name in root}
    slide = AnnData(None, var=summed.var, **slots)
    for kind, counts in _others(path, root, found, source).items():
        slide.obsm[kind if kind not in slide.obsm else f"{kind}_counts"] = counts
    unread = {f"{name}['{key}']": name for name in ("varm", "varp") for key in root.get(name, ())}
    lost = [place for place in _places(root) if place != found.where]
    lost += [place for place, name in unread.items() if name not in names]
    notes += [f"not read and left out: {few(lost, 20)}"] if lost else []
    leave_on_disk(slide, source)
    return slide, found.where


def _find(path: Path, layer: str | None, notes: list[str]) -> tuple[Counts, CountsOnDisk]:
    """Find the raw counts by the first spots: theirs with the names of the genes, and all."""
    root = open_root(path)
    places = _places(root)
    found = find_counts(_head(root, places), layer)
    notes += [found.note] if found.note else []
    stored = root[places[found.where]]
    if _is_by_genes(stored):
        raise InputError(
            f"{found.where} is stored by genes (CSC), so that its spots cannot be read one by one; "
            "write it as CSR, or read it without backed"
        )
    named, about_names = name_genes(found)
    notes += about_names
    codes, names = pd.factorize(named.var.index)
    n_rows, n_stored = (stored if hasattr(stored, "shape") else sparse_dataset(stored)).shape
    columns = np.full(n_stored, -1, dtype=np.int32)
    columns[named.var[_STORED].to_numpy()] = codes
    named = replace(named, var=named.var.drop(columns=_STORED))
    rows = np.arange(root["obs"][root["obs"].attrs["_index"]].shape[0], dtype=np.int64)
    if n_rows != len(rows):
        raise InputError(
            f"{found.where} has {n_rows:,} rows for {len(rows):,} spots; copy it again"
        )
    source = CountsOnDisk(path.resolve(), places[found.where], columns, len(names), rows)
    return named, source


def _others(path: Path, root: Any, found: Counts, source: CountsOnDisk) -> dict[str, pd.DataFrame]:
    """Read the counts of features that are no genes into tables: of antibodies and others."""
    if not found.others:
        return {}
    var = read_elem(root["raw/var" if found.where == "raw" else "var"])
    obs = read_elem(root["obs"])
    tables = {}
    for kind, features in other_features(var)[0].items():
        columns = np.full(len(source.columns), -1, dtype=np.int32)
        columns[features] = np.arange(len(features), dtype=np.int32)
        own = CountsOnDisk(source.path, source.group, columns, len(features), source.rows)
        tables[kind] = pd.DataFrame(
            own.load().toarray(), index=obs.index, columns=feature_names(var, features)
        )
    return tables


def _places(root: Any) -> dict[str, str]:
    """List the matrices of an AnnData: name in messages → group."""
    layers = {f"layers['{name}']": f"layers/{name}" for name in root.get("layers", ())}
    others = {"X": "X", "raw": "raw/X"}
    return {place: group for place, group in {**others, **layers}.items() if group in root}


def _head(root: Any, places: dict[str, str]) -> AnnData:
    """Read the first spots of all matrices."""
    obs = read_elem(root["obs"]).iloc[:_HEAD]
    tables = {place: read_elem(root["raw/var" if place == "raw" else "var"]) for place in places}
    tables = {name: table.assign(**{_STORED: range(len(table))}) for name, table in tables.items()}
    matrices = {}
    for place, group in places.items():
        stored = root[group]
        stored = stored if hasattr(stored, "shape") else sparse_dataset(stored)
        matrices[place] = stored[: len(obs)]
    var = next((tables[place] for place in places if place != "raw"), None)
    head = AnnData(matrices.pop("X", None), obs=obs, var=var)
    if "raw" in matrices:
        head.raw = AnnData(matrices.pop("raw"), obs=obs, var=tables["raw"])
    for place, matrix in matrices.items():
        head.layers[places[place].removeprefix("layers/")] = matrix
    return head


def _n_genes(root: Any) -> int:
    return int(root["var"][root["var"].attrs["_index"]].shape[0])
