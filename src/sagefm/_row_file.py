"""A matrix in a file, of which rows are written and read; it is never mapped into memory."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from sagefm._files import writing
from sagefm._types import Positions, Singles


class RowFile:
    """A matrix of float32 in an .npy file, filled in any order.

    Mapped files count as memory of the process, and the kernel decides when to write them; here a
    matrix of any size takes no more memory than the rows in use.

    Parameters
    ----------
    path
        The file; what it holds stays if it has the right size.
    n_rows, width
        Shape of the matrix.
    """

    def __init__(self, path: Path, n_rows: int, width: int) -> None:
        self.path, self.shape = path, (n_rows, width)
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, width), np.float32))
        with writing(path):
            path.touch()
            with path.open("rb+") as file:
                np.lib.format.write_array_header_1_0(file, {**header, "shape": self.shape})
                self._start = file.tell()
                file.truncate(self._start + 4 * n_rows * width)

    def write(self, rows: Positions, values: Singles) -> None:
        """Write some rows."""
        order = np.argsort(rows, kind="stable")
        rows, values = rows[order], np.ascontiguousarray(values[order], dtype=np.float32)
        with writing(self.path), self.path.open("rb+", buffering=0) as file:
            for first, last in _runs(rows):
                file.seek(self._place(rows[first]))
                left = values[first:last].data.cast("B")
                while left:  # the system may write less than it is given
                    left = left[file.write(left) :]

    def read(self, rows: Positions) -> Singles:
        """Read some rows, in ascending order."""
        values = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        with self.path.open("rb", buffering=0) as file:
            for first, last in _runs(rows):
                file.seek(self._place(rows[first]))
                left = values[first:last].data.cast("B")
                while left and (n_read := file.readinto(left)):
                    left = left[n_read:]
        return values

    def sync(self) -> None:
        """Flush to disk what was written."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def array(self, *, mapped: bool) -> Singles:
        """Get the whole matrix, in memory or as a file that is read where it is used."""
        return np.asarray(np.load(self.path, mmap_mode="r" if mapped else None))

    def _place(self, row: int) -> int:
        return self._start + 4 * int(row) * self.shape[1]


def _runs(rows: Positions) -> list[tuple[int, int]]:
    """Find where ascending row numbers follow each other."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    ends = [0, *cuts.tolist(), len(rows)]
    return [(a, b) for a, b in pairwise(ends) if a < b]
