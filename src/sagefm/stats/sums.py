"""Sums of sparse counts in double precision.

Those of scipy add up in the type of the values, where single counts are lost beyond 2²⁴.
"""

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Bools, Floats

_ROWS = 1024
"""Rows that are summed together."""


def row_sums(counts: csr_matrix) -> Floats:
    """Sum each row, without a copy of the values."""
    sums = np.zeros(counts.shape[0])
    for start in range(0, counts.shape[0], _ROWS):
        ends = counts.indptr[start : start + _ROWS + 1]
        filled = np.flatnonzero(ends[1:] > ends[:-1])
        if len(filled):
            values = counts.data[ends[0] : ends[-1]]
            starts = ends[filled] - ends[0]
            sums[start + filled] = np.add.reduceat(values, starts, dtype=np.float64)
    return sums


def column_sums(counts: csr_matrix, chosen: Bools | None = None) -> Floats:
    """Sum each column, over all rows or over those that are chosen."""
    ones = np.ones(counts.shape[0]) if chosen is None else chosen.astype(np.float64)
    sums = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[0], _ROWS):
        ends = counts.indptr[start : start + _ROWS + 1]
        values = slice(ends[0], ends[-1])
        parts = (counts.data[values], counts.indices[values], ends - ends[0])
        rows = csr_matrix(parts, shape=(len(ends) - 1, counts.shape[1]))
        sums += rows.T @ ones[start : start + _ROWS]
    return sums
