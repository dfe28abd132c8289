"""Make what other programs put into an AnnData fit into an .h5ad, and say what was changed."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from enum import Enum
from itertools import count
from numbers import Number
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from sagefm._text import few

if TYPE_CHECKING:
    from anndata import AnnData

_DEPTH = 50
_RESERVED = {"_index": "index_", "": "unnamed", ".": "_", "..": "__"}
"""Names that HDF5 or anndata keep for themselves, and what is written instead."""


@dataclass
class _Changes:
    """What was changed, by place."""

    renamed: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Describe the changes, one line for each kind."""
        said = {
            "renamed, so that it can be written": self.renamed,
            "converted, so that it can be written": self.converted,
            "left out, because it cannot be written": self.dropped,
        }
        return [f"{what}: {few(places, 10)}" for what, places in said.items() if places]


class _Unwritable(Exception):
    """A value has no form that can be written."""


def make_writable(slide: "AnnData") -> list[str]:
    """Rename keys and convert values that an .h5ad cannot hold; leave out what has no such form.

    Parameters
    ----------
    slide
        It is changed, but not the arrays and tables in it.

    Returns
    -------
    What was renamed, converted and left out, a line each.
    """
    changes = _Changes()
    for name in ("obs", "var"):
        table = getattr(slide, name)
        fitting = _fit_table(table, name, changes)
        if fitting is not table:
            setattr(slide, name, fitting)
    for name in ("obsm", "varm", "obsp", "varp", "layers"):
        _fit_slot(getattr(slide, name), name, changes)
    if slide.raw is not None:
        table = _fit_table(slide.raw.var, "raw.var", changes)
        before = dict(slide.raw.varm)
        varm = dict(before)
        _fit_slot(varm, "raw.varm", changes)
        same = varm.keys() == before.keys() and all(varm[key] is before[key] for key in varm)
        if table is not slide.raw.var or not same:
            obs = pd.DataFrame(index=slide.obs_names)
            slide.raw = type(slide)(slide.raw.X, obs=obs, var=table, varm=varm)
    uns = dict(slide.uns)
    entries = _fit_mapping(uns, "uns", changes, 0)
    if entries is not uns:
        slide.uns = entries
    return changes.notes()


def writable_names(names: Sequence[Any]) -> list[str]:
    """Choose names of columns that can be written, all different; the same where they can be."""
    return _fit_names(names, "", _Changes())


def _fit_slot(slot: Any, where: str, changes: _Changes) -> None:
    """Change the arrays of a slot such as ``obsm`` in place."""
    keys = [key for key in slot if key is not None]  # anndata lists X among the layers
    for key, name in zip(keys, _fit_names(keys, where, changes), strict=True):
        values, place = slot[key], f"{where}['{key}']"
        try:
            fitting = _fit_aligned(values, place, changes)
        except _Unwritable:
            changes.dropped.append(place)
            del slot[key]
            continue
        if name != key:
            del slot[key]
        if name != key or fitting is not values:
            slot[name] = fitting


def _fit_aligned(values: Any, where: str, changes: _Changes) -> Any:
    if isinstance(values, pd.DataFrame):
        return _fit_table(values, where, changes)
    kind = values.format if issparse(values) else ""  # type: ignore[attr-defined]
    if hasattr(values, "dask") or kind in ("csr", "csc"):
        return values
    if kind:
        changes.converted.append(where)
        return values.tocsr()
    return _fit_value(values, where, changes, 0)


def _fit_names(keys: Sequence[Any], where: str, changes: _Changes) -> list[str]:
    """Choose a name that can be written for each key, all different."""
    plain = [_plain_name(key) for key in keys]
    taken = {name for key, name in zip(keys, plain, strict=True) if key == name}
    names: list[str] = []
    used: set[str] = set()
    for key, name in zip(keys, plain, strict=True):
        if key != name or name in used:
            name = next(other for other in _alternatives(name) if other not in taken)
            changes.renamed.append(f"{where}['{key}'] is '{name}'")
        names.append(name)
        used.add(name)
        taken.add(name)
    return names


def _plain_name(key: Any) -> str:
    text = "_".join(map(str, key)) if isinstance(key, tuple) else str(key)
    name = _clean(text.replace("/", "_"))
    return _RESERVED.get(name, name)


def _alternatives(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{i}" for i in count(1))


def _clean(text: str) -> str:
    """Remove what UTF-8 and HDF5 cannot hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _fit_table(table: pd.DataFrame, where: str, changes: _Changes) -> pd.DataFrame:
    """Fit the names, the columns and the index of a table; the same table if all fit."""
    keys = list(table.columns)
    names = _fit_names(keys, where, changes)
    columns = [table.iloc[:, i] for i in range(len(keys))]
    fitted = [_fit_column(column) for column in columns]
    changed = [i for i, column in enumerate(columns) if fitted[i] is not column]
    # anndata itself makes categories of text with gaps: nothing to tell.
    changes.converted += [f"{where}['{names[i]}']" for i in changed if not _is_text(columns[i])]
    index = _fit_index(table.index, names)
    if names == keys and not changed and index is table.index:
        return table
    parts = {i: column.set_axis(index) for i, column in enumerate(fitted)}
    fitting = pd.DataFrame(parts, index=index) if parts else pd.DataFrame(index=index)
    fitting.columns = pd.Index(names, dtype=object)
    return fitting


def _fit_index(index: Any, columns: Collection[str]) -> Any:
    """Convert an index to texts, without a name that cannot be written."""
    if index.dtype == object and not isinstance(index, pd.MultiIndex):
        fits = pd.api.types.infer_dtype(index, skipna=False) == "string" and not _unclean(index)
    else:
        fits = not isinstance(index, pd.MultiIndex) and _can_write(index._values)
    if len(index) and not fits:
        texts = [_clean(str(value)) for value in index]
        index = pd.Index(texts, dtype=object, name=index.name)
    name = index.name
    if name is None or (isinstance(name, str) and _plain_name(name) == name not in columns):
        return index
    return index.rename(None)


def _unclean(texts: Iterable[str]) -> bool:
    try:
        return b"\0" in "".join(texts).encode()
    except UnicodeEncodeError:
        return True


def _fit_column(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert a column to a type that every version of anndata writes; itself if it has one."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _fit_categories(column)
    if isinstance(dtype, np.dtype):
        if dtype.kind in "biufc":
            return column
    elif isinstance(dtype, pd.Float32Dtype | pd.Float64Dtype):
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
    elif isinstance(dtype, pd.SparseDtype):
        return _fit_column(pd.Series(np.asarray(column), column.index))
    elif _can_write(column._values) and not (
        isinstance(dtype, pd.StringDtype) and column.isna().any()
    ):
        return column
    return _fit_objects(column)


def _is_text(column: "pd.Series[Any]") -> bool:
    texts, dtype = column.dropna(), column.dtype
    usual = isinstance(dtype, pd.StringDtype) and dtype.na_value is np.nan
    usual = usual or column.dtype == object
    is_text = usual and pd.api.types.infer_dtype(texts, skipna=False) == "string"
    return is_text and not _unclean(texts)


def _fit_objects(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert a column of Python objects, of times or of text to numbers or to text."""
    missing = column.isna().to_numpy(dtype=bool)
    objects = column.astype(object)
    kind = pd.api.types.infer_dtype(objects, skipna=True)
    if kind == "string" and not missing.any() and not _unclean(objects):
        return column if column.dtype == object else objects
    if len(column) and missing.all():
        return pd.Series(np.full(len(column), np.nan), column.index)
    try:
        if kind in ("boolean", "integer"):
            dtype: Any = (bool, "boolean") if kind == "boolean" else (np.int64, "Int64")
            return objects.mask(missing, None).astype(dtype[int(missing.any())])
        if kind in ("floating", "mixed-integer-float", "decimal"):
            return objects.mask(missing, np.nan).astype(np.float64)
    except (OverflowError, TypeError, ValueError):
        pass  # integers of more than 64 bits are written as text
    texts = np.array(
        [
            None if gap else _clean(_text(value))
            for value, gap in zip(objects, missing, strict=True)
        ],
        dtype=object,
    )
    if missing.any():
        categories = pd.Index(sorted(set(texts[~missing])), dtype=object)
        return pd.Series(pd.Categorical(texts, categories), column.index)
    return pd.Series(texts, column.index, dtype=object)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _fit_categories(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert categories that are no numbers to texts, all different."""
    categories: Any = column.cat.categories
    dtype = categories.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return column
    kind = pd.api.types.infer_dtype(categories, skipna=False)
    if kind in ("string", "empty") and _can_write(categories._values) and not _unclean(categories):
        return column
    names = _fit_names([_clean(_text(value)) for value in categories], "", _Changes())
    codes = column.cat.codes.to_numpy()
    fitted = pd.Categorical.from_codes(codes, pd.Index(names, dtype=object), column.cat.ordered)
    return pd.Series(fitted, column.index)


def _fit_value(value: Any, where: str, changes: _Changes, depth: int) -> Any:
    """Convert an entry of ``uns`` or an array to a form that can be written; itself if it has one.

    Raises
    ------
    _Unwritable
        It has none.
    """
    if isinstance(value, Mapping):
        return _fit_mapping(value, where, changes, depth + 1)
    if isinstance(value, pd.DataFrame):
        return _fit_table(value, where, changes)
    if isinstance(value, bool | float | np.number | np.bool_):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and type(value) is np.ndarray:
        return value
    for candidate in _forms(value):
        if _can_write(candidate):
            if candidate is not value:
                changes.converted.append(where)
            return candidate
    raise _Unwritable


def _forms(value: Any) -> Iterator[Any]:
    """Forms of a value that may be writable, the best first."""
    yield value
    if isinstance(value, str):
        yield _clean(value)
    elif isinstance(value, bytes | Number | date | time | timedelta | PurePath | Enum | UUID):
        yield _text(value)
    elif isinstance(value, set | frozenset):
        yield from _forms(sorted(value, key=str))
    elif isinstance(value, list | tuple):
        yield np.array([_clean(_text(item)) for item in value], dtype=object)
    elif isinstance(value, pd.Series):
        fitted = _fit_column(value)
        yield fitted._values
        yield np.asarray(fitted)
    elif isinstance(value, pd.Index | pd.api.extensions.ExtensionArray):
        yield from _forms(pd.Series(value))
    elif isinstance(value, np.ma.MaskedArray):
        numbers = value.astype(np.float64) if value.dtype.kind in "biuf" else value
        yield from _forms(np.ma.filled(numbers, np.nan if numbers is not value else None))
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            with suppress(ValueError, TypeError):
                yield value.astype(np.float64)
        texts = [_clean(_text(item)) for item in value.ravel().tolist()]
        yield np.array(texts, dtype=object).reshape(value.shape)


def _can_write(value: Any) -> bool:
    """Try to write a value into a file in memory."""
    import h5py
    from anndata.io import write_elem

    with h5py.File("memory", "w", driver="core", backing_store=False) as file, catch_warnings():
        simplefilter("ignore")
        try:
            write_elem(file, "value", value)
        except Exception:  # noqa: BLE001  # anndata and h5py raise nearly anything
            return False
    return True


def _fit_mapping(
    mapping: Mapping[Any, Any], where: str, changes: _Changes, depth: int
) -> Mapping[Any, Any]:
    """Fit keys and values of ``uns`` or of a dictionary in it; the same one if all fit."""
    if depth > _DEPTH:
        raise _Unwritable
    keys, fitting = list(mapping), {}
    for key, name in zip(keys, _fit_names(keys, where, changes), strict=True):
        place = f"{where}['{key}']"
        try:
            fitting[name] = _fit_value(mapping[key], place, changes, depth)
        except _Unwritable:
            changes.dropped.append(place)
    same = list(fitting) == keys and all(fitting[key] is mapping[key] for key in keys)
    return mapping if same and type(mapping) is dict else fitting
