"""Add a table of counts to the spots of a slide, as a second modality."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Bools
from sagefm._writable import writable_names
from sagefm.pp.count_tables import CountTable, open_table
from sagefm.pp.matching import match_rows
from sagefm.pp.modalities import OWN, describe, is_protein, modality
from sagefm.pp.pooling import pool

_LARGEST = 2**30
"""Values of a table, which is dense."""


def add_counts(
    slide: AnnData, name: str, table: "pd.DataFrame | AnnData | str | os.PathLike[str]"
) -> None:
    """Add the counts of a second modality to a slide, such as proteins or bacterial genera.

    Rows are matched to spots by name, in any order; an ending as -1 or the name of a sample may be
    on one side only. Cells with coordinates (an AnnData with ``obsm["spatial"]`` in those of the
    slide) are pooled in the spots that they lie in.

    Parameters
    ----------
    slide
        The table is added as ``obsm[name]``: raw counts, spots × features. The row of a spot that
        the table lacks is NaN: not measured.
    name
        Of the modality. ``"protein"`` means antibodies: isotype controls are recognized by their
        names, and values are normalized by CLR.
    table
        Raw counts, spots × features: a DataFrame, an AnnData, or the path of an .h5ad, .csv or .tsv
        (also .gz), or of a matrix of 10x (.h5).

    Raises
    ------
    InputError
        The name is taken, the table cannot be read or holds no raw counts, or none of its rows
        is a spot of the slide.

    Examples
    --------
    >>> sagefm.pp.add_counts(slide, "genera", "genera.h5ad")  # doctest: +SKIP
    """
    notes: list[str] = []
    place = attach(slide, name, table, notes)
    notes += describe(modality(slide, name))
    for line in notes:
        logger.warning("%s: %s", Path(place).name, line)


def attach(slide: AnnData, name: str, table: Any, notes: list[str]) -> str:
    """Add counts as :func:`add_counts`, with notes in a list; return what the table is called."""
    if not isinstance(slide, AnnData):
        raise InputError(f"{type(slide).__name__} is no slide; read it with sagefm.read")
    _require_free(slide, name)
    if not slide.obs_names.is_unique:
        raise InputError("spots of the slide have the same name; read it with sagefm.read")
    place = os.fspath(table) if isinstance(table, str | os.PathLike) else f"table {name!r}"
    try:
        found = open_table(table, proteins=is_protein(name), notes=notes)
        matrix, measured, features = _of_spots(slide, found, notes)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if np.prod(matrix.shape) > _LARGEST:
        raise InputError(
            f"{place}: {matrix.shape[1]:,} features for {slide.n_obs:,} spots are too many for a "
            "table in obsm; choose some, or sum them in groups"
        )
    values = matrix.toarray()
    values[~measured] = np.nan
    slide.obsm[name] = pd.DataFrame(values, index=slide.obs_names, columns=features)
    try:
        modality(slide, name)
    except InputError as error:
        del slide.obsm[name]
        raise InputError(f"{place}: {error}") from error
    return place


def _require_free(slide: AnnData, name: str) -> None:
    if (
        not isinstance(name, str)
        or not name.strip()
        or "=" in name
        or [name] != writable_names([name])
    ):
        raise InputError(f"{name!r} is no name of a modality; give one such as protein or genera")
    if name == _keys.SPATIAL or name.startswith(OWN):
        raise InputError(f"{name!r} is a name of sagefm itself; choose another for the modality")
    taken = [key for key in slide.obsm if key == name]
    if is_protein(name):
        taken += [key for key in slide.obsm if is_protein(key)]
    if taken:
        raise InputError(
            f"the slide has {name!r} already (obsm['{taken[0]}']); choose another name, or delete "
            "it first"
        )


def _of_spots(
    slide: AnnData, table: CountTable, notes: list[str]
) -> tuple[csr_matrix, Bools, pd.Index]:
    """Bring a table into the order of the spots: counts, whether each is measured, features."""
    fault = ""
    try:
        at = match_rows(slide.obs_names, table.rows, notes)
    except InputError as error:
        at, fault = np.full(slide.n_obs, -1, dtype=np.int64), str(error)
    if not fault and (at < 0).all() and (transposed := _transposed(slide, table)) is not None:
        notes.append("the table has a column per spot, and is turned")
        table, at = transposed, match_rows(slide.obs_names, transposed.rows, notes)
    if (at < 0).all():
        if table.xy is not None:
            try:
                matrix, measured = pool(slide, table.matrix, table.xy, notes)
            except InputError as error:
                raise InputError(fault or str(error)) from error
            return matrix, measured, table.features
        raise InputError(
            fault
            or f"no row (such as {few(table.rows, 2)}) is a spot of the slide (such as "
            f"{few(slide.obs_names, 2)}); name the rows by the barcodes of the spots"
        )
    measured = at >= 0
    measured[measured] = table.measured[at[measured]]
    rows = np.where(at >= 0, at, 0)
    notes += _left_out(slide, table, at, measured)
    return csr_matrix(table.matrix[rows]), measured, table.features


def _transposed(slide: AnnData, table: CountTable) -> CountTable | None:
    """Exchange rows and columns where the columns are spots."""
    try:
        at = match_rows(slide.obs_names, table.features, [])
    except InputError:
        return None
    return table.transposed() if (at >= 0).any() else None


def _left_out(slide: AnnData, table: CountTable, at: np.ndarray, measured: Bools) -> list[str]:
    """Note spots without a row, rows without a spot, and coordinates that differ."""
    notes = []
    if missing := int((~measured).sum()):
        notes.append(
            f"{missing:,} of {numbered(slide.n_obs, 'spot')} have no counts in the table and are "
            "not measured (NaN)"
        )
    if unused := len(table.rows) - int((at >= 0).sum()):
        notes.append(f"{numbered(unused, 'row')} of no spot of the slide left out")
    if table.xy is None or _keys.SPATIAL not in slide.obsm:
        return notes
    own, theirs = np.asarray(slide.obsm[_keys.SPATIAL])[at >= 0], table.xy[at[at >= 0]]
    # The same places in another unit are a multiple of these.
    scale = (own[:, :2] * theirs).sum() / max((theirs**2).sum(), 1e-300)
    apart = np.hypot(*(own[:, :2] - scale * theirs).T)
    if np.median(apart) > 0.01 * np.ptp(own[:, :2], axis=0).max():
        notes.append(
            "the coordinates of the table are not those of the slide; slides of one kind share "
            "barcodes: make sure that the table is of this slide"
        )
    return notes
