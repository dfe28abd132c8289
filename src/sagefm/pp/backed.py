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
from sagefm.pp.anndata_file import quiet
from sagefm.pp.counts import Counts, find_counts, sum_duplicates
from sagefm.pp.naming import name_genes
from sagefm.pp.on_disk import CountsOnDisk, leave_on_disk, open_root

LARGE = 1 << 30
"""Bytes of counts in memory from which they stay on disk where nothing is said."""
_HEAD = 1000
"""Spots by which the place of the raw counts is found."""
_STORED = "sagefm_stored"


def is_large(path: Path) -> bool:
    """Whether the counts of an .h5ad or zarr would take more than 1 GB of memory."""
    try:
        root = open_root(path)
        stored = [root[group] for group in _places(root).values()]
        return max((_size(one) for one in stored), default=0) > LARGE
    except Exception:  # noqa: BLE001 (the reader says what is wrong)
        return False


def _size(stored: Any) -> int:
    """Count the bytes that a matrix takes as compressed sparse rows."""
    return 8 * int(np.prod(stored.shape) if hasattr(stored, "shape") else stored["data"].shape[0])


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
    root = open_root(path)
    if not {"obs", "var"} <= set(root):
        raise InputError("holds no AnnData; only an .h5ad or a .zarr can be left on disk")
    found, source = _find(path, layer, notes)
    summed = sum_duplicates(found)
    notes += [summed.note] if summed.matrix is not found.matrix else []
    slots = {name: read_elem(root[name]) for name in ("obs", "obsm", "uns") if name in root}
    with quiet():
        slide = AnnData(None, var=summed.var, **slots)
    leave_on_disk(slide, source)
    return slide, found.where


def _find(path: Path, layer: str | None, notes: list[str]) -> tuple[Counts, CountsOnDisk]:
    """Find the raw counts by the first spots: theirs with the names of the genes, and all."""
    root = open_root(path)
    places = _places(root)
    with quiet():
        found = find_counts(_head(root, places), layer)
    notes += [found.note] if found.note else []
    if found.others:
        notes.append(f"counts that are not of genes stay in the file: {few(found.others)}")
    where = found.where.removeprefix("layers['").removesuffix("']")
    stored = root[places[where]]
    kind = getattr(stored, "attrs", {}).get("encoding-type")
    if kind == "csc_matrix":
        raise InputError(
            f"{found.where} is stored by genes (CSC), so that its spots cannot be read one by one; "
            "write it as CSR, or read it without backed"
        )
    named, about_names = name_genes(found)
    notes += about_names
    codes, names = pd.factorize(named.var.index)
    n_stored = (stored if hasattr(stored, "shape") else sparse_dataset(stored)).shape[1]
    columns = np.full(n_stored, -1, dtype=np.int32)
    columns[named.var[_STORED].to_numpy()] = codes
    named = replace(named, var=named.var.drop(columns=_STORED))
    rows = np.arange(root["obs"][root["obs"].attrs["_index"]].shape[0], dtype=np.int64)
    source = CountsOnDisk(path.resolve(), places[where], columns, len(names), rows)
    return named, source


def _places(root: Any) -> dict[str, str]:
    """List the matrices of an AnnData: name → group."""
    layers = {name: f"layers/{name}" for name in root.get("layers", ())}
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
        head.layers[place] = matrix
    return head
