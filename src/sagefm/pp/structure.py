"""Check the structure of what a file stores before any library believes it."""

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError

if TYPE_CHECKING:
    import h5py

LARGEST_COUNT = 2**24
"""Up to here float32 holds every whole number."""
_MOST_COMPRESSED = 1100
"""Deflate makes a file at most about a thousand times smaller."""
_SMALL = 2**24
"""Bytes that any file may claim."""


def csr_of(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, int]
) -> csr_matrix:
    """Make a matrix of counts from stored arrays, once they are known to fit together.

    SciPy checks little of this, and its compiled code writes outside its arrays if it is wrong.

    Raises
    ------
    InputError
        The arrays are no sparse matrix of this shape, or its values are no counts.
    """
    for name, values in (("indices", indices), ("indptr", indptr)):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(_damaged(f"its {name} are no list of whole numbers"))
    if data.ndim != 1 or data.dtype.kind not in "iuf":
        raise InputError(_damaged("its data are no list of numbers"))
    n_rows, n_columns = shape
    if len(indptr) != n_rows + 1:
        raise InputError(
            _damaged(f"its indptr has {len(indptr):,} entries and its shape {n_rows:,} rows")
        )
    if len(data) != len(indices):
        raise InputError(_damaged(f"it has {len(data):,} values and {len(indices):,} indices"))
    if indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        raise InputError(_damaged("its indptr does not rise from 0 to the number of values"))
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_columns):
        raise InputError(
            _damaged(
                f"its indices go from {indices.min():,} to {indices.max():,}, outside of "
                f"{n_columns:,} columns"
            )
        )
    require_counts(data)
    parts = data.astype(np.float32, copy=False), _native(indices), _native(indptr)
    return csr_matrix(parts, shape=shape)


def _native(indices: NDArray[Any]) -> NDArray[Any]:
    """Convert indices to a type that SciPy knows, without a copy where they have one."""
    return indices if indices.dtype in (np.int32, np.int64) else indices.astype(np.int64)


def require_counts(values: NDArray[Any]) -> None:
    """Check that values can be counts: finite, not negative, and exact in float32.

    Raises
    ------
    InputError
        They are not. Fractions are left to :func:`sagefm.pp.counts`, which knows the remedies.
    """
    if not len(values):
        return
    low, high = values.min(), values.max()  # both are NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the matrix holds NaN or infinite values; give raw counts")
    if low < 0:
        raise InputError(f"the matrix holds negative values (down to {low:,}); give raw counts")
    if high > LARGEST_COUNT:
        raise InputError(
            f"the matrix holds values up to {high:,}, more than any gene of a spot can have; "
            "give raw counts"
        )


def require_own_data(file: "h5py.File") -> None:
    """Check that an HDF5 file holds all its data itself, and does not claim more than it can hold.

    Raises
    ------
    InputError
        A part of it lies in another file, or is larger than the file can be when unpacked.
    """
    import h5py

    links: list[tuple[str, Any]] = []
    file.visititems_links(lambda name, link: links.append((name, link)))
    most = _SMALL + _MOST_COMPRESSED * file.id.get_filesize()
    for name, link in links:
        if isinstance(link, h5py.ExternalLink):
            raise InputError(f"its {name} lies in another file ({link.filename}); copy it into one")
        # The target of a soft link has a name of its own.
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual:
            raise InputError(f"its {name} lies in another file; copy it into one")
        if item.nbytes > most:
            raise InputError(f"it is damaged ({name} claims {item.nbytes:,} bytes); copy it again")


def require_finite_heaps(path: Path) -> None:
    """Check that no heap of texts in an HDF5 file has an entry without size.

    HDF5 would never leave it.

    Raises
    ------
    InputError
        One has.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"GCOL\x01\0\0\0")
        while at >= 0:
            end = at + int.from_bytes(data[at + 8 : at + 16], "little")
            entry = at + 16
            while entry + 16 <= min(end, len(data)):
                number = int.from_bytes(data[entry : entry + 2], "little")
                size = int.from_bytes(data[entry + 8 : entry + 16], "little")
                if number == 0 and size == 0:
                    raise InputError("is damaged: a heap of texts has no end; copy it again")
                entry += 16 + -(-size // 8) * 8 if number else size
            at = data.find(b"GCOL\x01\0\0\0", at + 8)


def _damaged(what: str) -> str:
    return f"the matrix is damaged ({what}); copy it again"
