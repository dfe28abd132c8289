"""Open a table of counts of spots or cells: a DataFrame, an AnnData, or a file of one."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._spatialdata import is_zarr
from sagefm._text import few, numbered
from sagefm._types import Bools, Floats
from sagefm._writable import writable_names
from sagefm.pp.anndata_file import read_h5ad, read_zarr
from sagefm.pp.container import file_format
from sagefm.pp.counts import coordinates, find_counts
from sagefm.pp.features import feature_types
from sagefm.pp.matrix import canonical, to_csr, value_fault
from sagefm.pp.tenx import read_matrix, unreadable

_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_LARGEST = 20_000
"""Features of a table, which is stored dense; there may be more peaks, but no more antibodies."""


@dataclass(frozen=True)
class CountTable:
    """Raw counts with names.

    Attributes
    ----------
    matrix
        Rows × features, float32, whole numbers.
    rows, features
        Their names, as texts; each is unique.
    measured
        Whether each row has values.
    xy
        Coordinates of the rows, if the table has some.
    """

    matrix: csr_matrix
    rows: pd.Index
    features: pd.Index
    measured: Bools
    xy: Floats | None = None

    def transposed(self) -> "CountTable":
        """Exchange rows and features."""
        everywhere = np.ones(len(self.features), dtype=bool)
        return CountTable(csr_matrix(self.matrix.T), self.features, self.rows, everywhere)


def open_table(table: Any, *, proteins: bool, notes: list[str]) -> CountTable:
    """Open a table of counts.

    Parameters
    ----------
    table
        A DataFrame (rows × features) or an AnnData, or the path of one: .h5ad, .zarr, .csv,
        .tsv, .txt (also .gz), or a matrix of 10x (.h5).
    proteins
        Whether the proteins are meant, if there are features of several types.
    notes
        Notes for the user are appended to it.

    Raises
    ------
    InputError
        It cannot be read, is empty, or has no raw counts, or names are duplicated.
    """
    if isinstance(table, str | os.PathLike):
        table = _read(Path(table), notes)
    if isinstance(table, pd.DataFrame):
        found = _of_frame(table, notes)
    elif isinstance(table, AnnData):
        found = _of_anndata(table, proteins, notes)
    else:
        raise InputError(
            f"{type(table).__name__} is no table with names; give a DataFrame, an AnnData, or the "
            "path of an .h5ad or .csv"
        )
    if not len(found.rows) or not len(found.features):
        raise InputError("is empty; give a row for each spot and a column for each feature")
    for names, what in ((found.rows, "row"), (found.features, "feature")):
        if len(repeated := names[names.duplicated()].unique()):
            raise InputError(
                f"{numbered(len(repeated), what)} more than once ({few(repeated)}); keep one each"
            )
    if not found.measured.any():
        raise InputError("all values are missing; give counts")
    return replace(found, features=_texts(writable_names(list(found.features))))


def _texts(names: list[str]) -> pd.Index:
    index: pd.Index = pd.Index(np.array(names, dtype=object))
    return index


def _read(path: Path, notes: list[str]) -> pd.DataFrame | AnnData:
    if path.is_dir() and is_zarr(path):
        return read_zarr(path)
    if not path.is_file():
        raise InputError("is a folder; name a file" if path.is_dir() else "does not exist")
    name = path.name.lower()
    if name.endswith(_TEXT):
        return _read_text(path)
    match file_format(path):
        case "AnnData":
            return read_h5ad(path)
        case "10x":
            matrix, barcodes, var = read_matrix(path, notes)
            return AnnData(matrix, obs=pd.DataFrame(index=barcodes), var=var)
        case "MuData":
            raise InputError("is a MuData; read all of it with sagefm.read")
    raise InputError("is no table of counts; give an .h5ad, .csv or .tsv")


def _read_text(path: Path) -> pd.DataFrame:
    """Read a table of text: the first column has the names, whatever separates the columns."""
    try:
        heads = {sep: pd.read_csv(path, sep=sep, nrows=0).shape[1] for sep in (",", "\t", ";")}
        found = pd.read_csv(path, sep=max(heads, key=heads.__getitem__), index_col=0)
    except Exception as error:  # of a file that is no text, nearly anything
        raise InputError(unreadable("", error)) from error
    if not found.shape[1]:
        raise InputError("has one column only; separate the columns by commas or tabs")
    return found


def _of_frame(table: pd.DataFrame, notes: list[str]) -> CountTable:
    if isinstance(table.index, pd.MultiIndex) or isinstance(table.columns, pd.MultiIndex):
        raise InputError("has names of several levels; give rows and columns one name each")
    if isinstance(table.index, pd.RangeIndex) and table.shape[1]:
        first = table.iloc[:, 0]
        if not pd.api.types.is_numeric_dtype(first):  # the names, which are not the index yet
            table = table.iloc[:, 1:].set_axis(pd.Index(first), axis=0)
    values = np.empty(table.shape)
    for column in range(table.shape[1]):
        values[:, column] = _numbers(table.iloc[:, column])
    missing = np.isnan(values)
    measured: Bools = np.asarray(~missing.all(axis=1))
    gone: Bools = np.asarray(missing.all(axis=0))
    features = table.columns
    if measured.any() and gone.any():
        notes.append(f"columns without values are left out: {few(features[gone])}")
        values, missing, features = values[:, ~gone], missing[:, ~gone], features[~gone]
    if holes := int(missing[measured].any(axis=1).sum()):
        raise InputError(
            f"{numbered(holes, 'row')} with missing values beside counts; fill them, or leave the "
            "whole row empty if that spot is not measured"
        )
    matrix = to_csr(np.where(missing, 0.0, values), "the table")
    return _counted(matrix, table.index, features, measured, notes)


def _numbers(column: "pd.Series[Any]") -> Floats:
    try:
        if column.dtype.kind in "cmM":  # dates would be numbers
            raise TypeError
        plain = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
        numbers = pd.to_numeric(plain).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        values = column.dropna()
        text = values[pd.to_numeric(values.astype(str), errors="coerce").isna().to_numpy()]
        raise InputError(
            f"column {column.name!r} has values that are no numbers (such as {few(text, 1)}); "
            "leave it out"
        ) from error
    return np.asarray(numbers)


def _counted(
    matrix: csr_matrix, rows: pd.Index, features: pd.Index, measured: Bools, notes: list[str]
) -> CountTable:
    """Check that values are counts, and give names that can be written."""
    if fault := value_fault(matrix):
        raise InputError(f"holds {fault}, not raw counts; give the counts as they were measured")
    if len(features) > _LARGEST:
        raise InputError(
            f"has {len(features):,} features; choose at most {_LARGEST:,}, or sum them in groups"
        )
    matrix, note = canonical(matrix, "the table")
    notes += [note] if note else []
    return CountTable(matrix, rows.astype(str).str.strip(), features.astype(str), measured)


def _of_anndata(table: AnnData, proteins: bool, notes: list[str]) -> CountTable:
    try:
        several = feature_types(table.var) is not None
    except InputError:  # none is a gene, as it should be
        several = False
    if not (several and proteins):
        table = _without_types(table)
    try:
        found = find_counts(table)
    except InputError as error:
        fault = str(error).split("; ")[0]
        raise InputError(f"{fault}; give raw counts in X or layers['counts']") from error
    if found.others:
        antibodies = [key for key in found.others if "antibod" in key or "prot" in key]
        return _of_frame(found.others[antibodies[0] if antibodies else min(found.others)], notes)
    notes += [found.note] if found.note else []
    everywhere = np.ones(table.n_obs, dtype=bool)
    counted = _counted(found.matrix, table.obs_names, found.var.index, everywhere, notes)
    if _keys.SPATIAL not in table.obsm:
        return counted
    return replace(counted, xy=coordinates(table))


def _without_types(table: AnnData) -> AnnData:
    """Leave out what tells types of features apart: all of them are meant."""
    obs, var = (pd.DataFrame(index=names) for names in (table.obs_names, table.var_names))
    obsm = {key: table.obsm[key] for key in [_keys.SPATIAL] if key in table.obsm}
    bare = AnnData(table.X, obs=obs, var=var, layers=dict(table.layers), obsm=obsm)
    if table.raw is not None:
        features = pd.DataFrame(index=table.raw.var_names)
        bare.raw = AnnData(table.raw.X, obs=obs, var=features)
    return bare
