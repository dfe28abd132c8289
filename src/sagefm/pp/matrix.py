"""Check matrices of counts, wherever they come from: their structure before any use, their values.

The compiled loops of scipy believe the index arrays of a matrix. One index outside it, from a
damaged file or from a program with a fault, ends the process or changes other numbers.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._text import numbered
from sagefm.pp.structure import LARGEST_COUNT

_LOG_NORMALIZED_BELOW = 20.0
"""Log-normalized values stay below this: no spot has e^20 counts."""
_ROUNDING = 1e-5
"""Values that differ from whole numbers by less than this fraction of themselves are counts that
were scaled and scaled back."""
_LARGEST_ROUNDING = 0.05


def to_csr(values: Any, where: str) -> csr_matrix:
    """Convert a matrix of any kind to CSR, without a copy where it is one.

    Parameters
    ----------
    values
        Dense or sparse, in memory, on disk or of dask.
    where
        Its place in the slide, for messages.

    Raises
    ------
    InputError
        The matrix cannot be loaded, its structure is damaged, or it does not hold numbers.
    """
    try:
        values = _in_memory(values)
    except InputError as error:
        raise InputError(f"{where} {error}") from error
    except MemoryError as error:
        raise InputError(f"{where} needs more memory than there is ({error})") from error
    except Exception as error:  # files that are closed or damaged, and what dask computes
        raise InputError(f"{where} cannot be loaded ({error}); load the slide again") from error
    if fault := structure_fault(values):
        raise InputError(f"{where} is damaged: {fault}; write it again, or copy the file again")
    dtype = values.dtype
    if dtype.kind not in "biuf":
        raise InputError(
            f"{where} holds values of type {dtype}, not numbers; "
            "give raw counts, or pass layer= to name where they are"
        )
    if values.ndim != 2:
        raise InputError(f"{where} has {values.ndim} dimensions; give spots × genes")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):  # not known to scipy
        values = _cast(values, np.dtype(np.float32 if dtype.itemsize < 4 else np.float64))
    elif not dtype.isnative:
        values = _cast(values, dtype.newbyteorder("="))
    return csr_matrix(_native_indices(values))


def _cast(values: Any, dtype: "np.dtype[Any]") -> Any:
    """Convert the type of values; astype of scipy would also sum duplicates, in place."""
    if getattr(values, "format", "") not in ("csr", "csc"):
        return values.astype(dtype)
    arrays = values.data.astype(dtype), values.indices, values.indptr
    return type(values)(arrays, shape=values.shape)


def _in_memory(values: Any) -> Any:
    """Load a matrix that is on disk, or computed when it is needed."""
    if hasattr(values, "to_memory"):
        values = values.to_memory()
    if hasattr(values, "dask"):
        values = _computed(values)
    if isinstance(values, pd.DataFrame):
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        if missing := int(np.ma.getmaskarray(values).sum()):
            raise InputError(f"has {numbered(missing, 'masked value')}; fill them in")
        values = values.data
    return values if sparse.issparse(values) else np.asarray(values)


def _computed(values: Any) -> Any:
    """Compute an array of dask; blocks that are sparse are put together here."""
    if not sparse.issparse(getattr(values, "_meta", None)):
        return values.compute()
    rows, columns = values.numblocks
    blocks = [[values.blocks[i, j].compute() for j in range(columns)] for i in range(rows)]
    for block in (block for row in blocks for block in row):
        if fault := structure_fault(block):
            raise InputError(f"is damaged: {fault}; compute it again")
    return sparse.vstack([sparse.hstack(row, format="csr") for row in blocks], format="csr")


def _native_indices(values: Any) -> Any:
    """Give the index arrays a type that scipy knows; a file may have stored any other."""
    for name in ("indices", "indptr") if getattr(values, "format", "") in ("csr", "csc") else ():
        if getattr(values, name).dtype not in (np.int32, np.int64):
            arrays = values.data, values.indices.astype(np.int64), values.indptr.astype(np.int64)
            return type(values)(arrays, shape=values.shape)
    return values


def structure_fault(values: Any) -> str:
    """Describe what is wrong with the structure of a sparse matrix; empty if it is sound.

    Nothing here calls compiled code that trusts an index.
    """
    kind = getattr(values, "format", "") if sparse.issparse(values) else ""
    if kind in ("csr", "csc", "bsr"):
        rows, columns = values.shape if kind != "csc" else values.shape[::-1]
        if kind == "bsr":
            rows, columns = rows // values.blocksize[0], columns // values.blocksize[1]
        return _compressed_fault(values, rows, columns)
    if kind == "coo":
        sizes = {len(values.data), *map(len, values.coords)}
        if len(sizes) > 1:
            return "its arrays of indices and values differ in length"
        faults = [
            _index_fault(indices, size)
            for indices, size in zip(values.coords, values.shape, strict=True)
        ]
        return next(filter(None, faults), "")
    if kind == "lil":
        faults = [_index_fault(np.asarray(row, np.int64), values.shape[1]) for row in values.rows]
        uneven = any(map(lambda row, data: len(row) != len(data), values.rows, values.data))
        return next(filter(None, faults), "a row has more indices than values" if uneven else "")
    return ""


def _compressed_fault(values: Any, rows: int, columns: int) -> str:
    pointers, indices, data = (
        np.asarray(getattr(values, n)) for n in ("indptr", "indices", "data")
    )
    if pointers.ndim != 1 or indices.ndim != 1 or data.ndim != (3 if values.format == "bsr" else 1):
        return "its arrays have the wrong number of dimensions"
    if pointers.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        return "its indices are not integers"
    if len(pointers) != rows + 1:
        return f"it has {numbered(len(pointers) - 1, 'row')} where its shape says {rows:,}"
    if pointers[0] != 0 or (pointers[1:] < pointers[:-1]).any():
        return "the starts of its rows are not in order"
    if not pointers[-1] == len(indices) == len(data):
        return (
            f"its rows have {int(pointers[-1]):,} values, but {len(indices):,} indices and "
            f"{len(data):,} values are stored"
        )
    return _index_fault(indices, columns)


def _index_fault(indices: NDArray[Any], size: int) -> str:
    if not indices.size:
        return ""
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        return f"it has an index {low if low < 0 else high:,} where there are {size:,}"
    return ""


def require_sound(slide: AnnData) -> None:
    """Raise an error if a sparse matrix of a slide has a damaged structure.

    Raises
    ------
    InputError
        As said; the message names the matrix.
    """
    for where, values in _matrices(slide):
        if fault := structure_fault(values):
            raise InputError(f"{where} is damaged: {fault}; write it again, or copy the file again")


def _matrices(slide: AnnData) -> Iterator[tuple[str, Any]]:
    yield "X", slide.X
    if slide.raw is not None:
        yield "raw", slide.raw.X
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        for key, values in getattr(slide, slot).items():
            yield f"{slot}['{key}']", values


def value_fault(matrix: csr_matrix) -> str:
    """Describe why a matrix does not hold counts; empty if it does."""
    values = matrix.data
    if not values.size or values.dtype.kind == "b":
        return ""
    low, high = values.min(), values.max()  # both are NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        return numbered(int((~np.isfinite(values)).sum()), "NaN or infinite value")
    if low < 0:
        return f"negative values (from {low:.4g} to {high:.4g}; it looks scaled)"
    if not _whole(values):
        low = min(low, 0.0) if matrix.nnz < np.prod(matrix.shape) else low
        looks = "log-normalized" if high < _LOG_NORMALIZED_BELOW else "normalized"
        return f"values from {low:.4g} to {high:.4g} that are not integers (it looks {looks})"
    if high > LARGEST_COUNT:
        return f"values up to {high:.4g} (no count is above {LARGEST_COUNT:,})"
    return ""


def _whole(values: NDArray[Any]) -> bool:
    """Check that values are whole, or would be without rounding errors."""
    if values.dtype.kind != "f":
        return True
    nearest = np.rint(values)
    if np.array_equal(values, nearest):
        return True
    tolerated = np.clip(_ROUNDING * values, 10 * _ROUNDING, _LARGEST_ROUNDING)
    total = values.sum(dtype=np.float64)
    # Fractions of a library are all close to 0, but not because of rounding.
    lost = abs(nearest.sum(dtype=np.float64) - total) > 10 * _ROUNDING * total
    return not lost and bool((np.abs(values - nearest) <= tolerated).all())


def canonical(matrix: csr_matrix, where: str) -> tuple[csr_matrix, str]:
    """Convert counts to whole float32 with sorted indices and without duplicates.

    Returns
    -------
    The counts, which share memory with `matrix` if that has this form, and a note or nothing.

    Raises
    ------
    InputError
        The sum of duplicated entries is too large.
    """
    note = ""
    if matrix.dtype.kind == "f" and not np.array_equal(matrix.data, np.rint(matrix.data)):
        matrix = csr_matrix((np.rint(matrix.data), matrix.indices, matrix.indptr), matrix.shape)
        note = f"{where} holds counts with rounding errors; they were rounded"
    if matrix.dtype != np.float32:
        matrix = _cast(matrix, np.dtype(np.float32))
    if note or not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
        require_exact(matrix, where)
    if note:
        matrix.eliminate_zeros()
    return matrix, note


def require_exact(matrix: csr_matrix, where: str) -> None:
    """Raise an error if sums of counts are too large for float32.

    Raises
    ------
    InputError
        As said.
    """
    if matrix.nnz and matrix.data.max() > LARGEST_COUNT:
        raise InputError(
            f"{where} holds counts that add up to {matrix.data.max():.4g} for one spot and gene "
            f"(none is above {LARGEST_COUNT:,}); give raw counts"
        )
