"""How much genes vary over spots: in the neighborhood, and in the center."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.neighborhood import average

_SPOTS = 512
"""Spots whose neighborhoods are in memory together."""
_ROUNDING = 1e-10
"""Fraction of the mean square below which a variance is rounding of float32."""


def spreads(
    prepared: AlignedSlide, spots: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute standard deviations of log1p counts over some spots.

    Parameters
    ----------
    spots
        The centers.

    Returns
    -------
    For each gene of the vocabulary that of its mean over the neighbors, and that of itself in the
    centers; 0 where it does not vary.
    """
    n_genes = len(prepared.measured)
    moments = np.zeros((2, 2, n_genes))
    for start in range(0, len(spots), _SPOTS):
        rows = prepared.neighbors[spots[start : start + _SPOTS]]
        around = average(rows, center=False, n_spots=prepared.counts.shape[0]) @ prepared.log1p
        for sums, values in zip(moments, (around, prepared.log1p[rows[:, 0]]), strict=True):
            sums += _moments(csr_matrix(values), n_genes)
    means, squares = np.moveaxis(moments, 1, 0) / len(spots)
    variance = squares - means**2
    of_neighbors, of_centers = np.sqrt(np.where(variance > _ROUNDING * squares, variance, 0))
    return of_neighbors, of_centers


def _moments(values: csr_matrix, n_genes: int) -> NDArray[np.float64]:
    """Sum the columns and the squares of the columns."""
    numbers = values.data.astype(np.float64)
    sums = [np.bincount(values.indices, part, n_genes) for part in (numbers, numbers**2)]
    return np.asarray(sums)
