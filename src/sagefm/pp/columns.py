"""Move the columns of sparse counts, from the genes of a slide to those of a vocabulary."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class ColumnMap:
    """Where the columns of a matrix go: to those of another.

    Parameters
    ----------
    places
        For each column its new place, -1 for none; the values of one place are summed.
    n_places
        How many places there are.
    """

    def __init__(self, places: NDArray[np.int32], n_places: int) -> None:
        self.places, self.n_places = places, n_places
        kept = places[places >= 0]
        self.all_kept = len(kept) == len(places)
        self.ascending = bool((kept[1:] > kept[:-1]).all())
        self.merges = not self.ascending and len(np.unique(kept)) < len(kept)
        self.same = np.array_equal(places, np.arange(n_places))


def remapped(matrix: csr_matrix, columns: ColumnMap) -> csr_matrix:
    """Move the columns of a matrix; where all of them stay, the arrays are shared."""
    if columns.same:  # another matrix all the same: a change of its parts is no change of this one
        return csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    values, ends, places = matrix.data, matrix.indptr, columns.places[matrix.indices]
    if not columns.all_kept:
        kept = places >= 0
        ends = np.append(0, np.cumsum(kept, dtype=np.int64))[ends].astype(ends.dtype)
        places, values = places[kept], values[kept]
    elif not columns.ascending:
        values = values.copy()  # they are sorted later, in place
    moved = csr_matrix((values, places, ends), shape=(matrix.shape[0], columns.n_places))
    if columns.merges:
        moved.sum_duplicates()
    return moved
