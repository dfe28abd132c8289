"""Write and read HDF5 so that an error of the disk never reaches the C library."""

import io
import mmap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sagefm._keys import PROVENANCE
from sagefm._signals import uninterrupted

if TYPE_CHECKING:
    from anndata import AnnData

_ROWS = 1 << 15
"""Rows of a matrix in a file that are written together."""


class Sink(io.RawIOBase):
    """A file for HDF5 to write to, in which nothing ever fails.

    HDF5 may crash when it closes a file after a failed write. Here the first error is kept for the
    caller; what is written from then on stays in memory, where HDF5 finds it again.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._at = self._end = 0
        self._unwritten: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """Get the position."""
        return self._at

    def readable(self) -> bool:
        """Whether the file can be read."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes, or keep them."""
        view = memoryview(data).cast("B")
        start, rest = self._at, view
        try:
            if self.error is None:
                self._file.seek(start)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._unwritten.append((start, bytes(view)))
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read what was written."""
        view = memoryview(buffer).cast("B")[: max(0, self._end - self._at)]
        start, rest = self._at, view
        with suppress(OSError):
            self._file.seek(start)
            while rest and (n := self._file.readinto(rest)):
                rest = rest[n:]
        for at, data in self._unwritten:
            first, last = max(at, start), min(at + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - at : last - at]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Change the size of the file."""
        self._end = self._at if size is None else size
        try:
            if self.error is None:
                self._file.truncate(self._end)
        except OSError as error:
            self.error = error
        return self._end


def write_h5ad(slide: "AnnData", path: Path) -> None:
    """Write a slide as anndata does; Ctrl-C takes effect at the end.

    Raises
    ------
    OSError
        The disk is full, or the file cannot be written for another reason.
    """
    import h5py
    from anndata.experimental import write_dispatched

    slide.strings_to_categoricals()
    if slide.raw is not None:
        slide.strings_to_categoricals(slide.raw.var)
    with io.FileIO(path, "w+") as file:
        sink = Sink(file)

        def write(
            writer: Any, group: Any, key: str, value: Any, *, dataset_kwargs: Any, **_: Any
        ) -> None:
            if sink.error is not None:  # the rest would only fill the memory
                return
            if type(value) is np.ndarray and isinstance(value.base, np.memmap) and value.ndim:
                _write_mapped(group, key, value)
            else:
                writer(group, key, value, dataset_kwargs=dataset_kwargs)

        # A signal in the middle of a write would be an error that HDF5 sees.
        with uninterrupted(), h5py.File(sink, "w") as target:
            write_dispatched(target, "/", slide, write)
        if sink.error is not None:
            raise sink.error


def _write_mapped(group: Any, key: str, values: NDArray[Any]) -> None:
    """Write an array of a mapped file, some rows at a time: pages that are read are memory."""
    written = group.create_dataset(key, shape=values.shape, dtype=values.dtype)
    written.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    mapped: Any = getattr(values.base, "_mmap", None)
    for start in range(0, len(values), _ROWS):
        written[start : start + _ROWS] = values[start : start + _ROWS]
        if hasattr(mapped, "madvise"):  # not on Windows
            mapped.madvise(mmap.MADV_DONTNEED)


def recorded(path: Path, entry: str) -> str | None:
    """Read a text such as ``"read/source"`` of the provenance in an .h5ad; None if it has none."""
    import h5py

    try:
        with h5py.File(path) as file:
            value = file[f"uns/{PROVENANCE}/{entry}"][()]
        return value.decode() if isinstance(value, bytes) else None
    except (OSError, LookupError, AttributeError, RuntimeError, TypeError, ValueError):
        return None  # no .h5ad, damaged, or written by something else
