"""Leading components of large sparse matrices, each averaged over neighbors and centered."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Singles

_ROUNDS = 3
_SPARE = 8
_BLOCK = 512
"""Rows that are dense at a time."""


def shared_axes(
    matrices: Sequence[csr_matrix], operators: Sequence[csr_matrix], n_axes: int
) -> Singles:
    """Find the leading principal axes of several matrices together, each averaged and centered.

    Randomized subspace iteration (Halko, Martinsson and Tropp 2011) on blocks of rows: neither the
    averaged matrices nor dense copies of them are ever stored.

    Parameters
    ----------
    matrices
        Each rows × columns, with the same columns.
    operators
        For each matrix an operator that averages its rows.
    n_axes
        Number of axes; fewer if there are fewer rows or columns.

    Returns
    -------
    Columns × axes, orthonormal, float32.
    """
    n_rows, n_columns = sum(m.shape[0] for m in matrices), matrices[0].shape[1]
    n_axes = max(min(n_axes, n_rows - 1, n_columns), 1)
    means = [
        np.asarray(operator.mean(axis=0) @ matrix, dtype=np.float32).ravel()
        for matrix, operator in zip(matrices, operators, strict=True)
    ]
    parts = list(zip(matrices, operators, means, strict=True))
    width = min(n_axes + _SPARE, n_rows, n_columns)
    rows = np.random.default_rng(0).normal(size=(n_rows, width)).astype(np.float32)
    for _ in range(_ROUNDS):
        columns = np.linalg.qr(_transposed_product(parts, rows))[0]
        rows = np.linalg.qr(_product(parts, columns))[0]
    return np.asarray(
        np.linalg.svd(_transposed_product(parts, rows), full_matrices=False)[0][:, :n_axes]
    )


_Parts = Sequence[tuple[csr_matrix, csr_matrix, Singles]]


def _product(parts: _Parts, right: Singles) -> Singles:
    products = [
        operator @ project(matrix, right) - mean @ right for matrix, operator, mean in parts
    ]
    return np.concatenate(products).astype(np.float32)


def _transposed_product(parts: _Parts, left: Singles) -> Singles:
    total = np.zeros((parts[0][0].shape[1], left.shape[1]), dtype=np.float32)
    first = 0
    for matrix, operator, mean in parts:
        own = left[first : first + matrix.shape[0]]
        first += len(own)
        averaged = np.asarray(operator.T @ own, dtype=np.float32)
        for at, block in _blocks(matrix):
            total += block.T @ averaged[at]
        total -= np.outer(mean, own.sum(axis=0))
    return total


def project(matrix: csr_matrix, axes: Singles) -> Singles:
    """Multiply rows × columns, sparse, with columns × axes, dense, in dense blocks."""
    return np.concatenate([block @ axes for _, block in _blocks(matrix)])


def _blocks(matrix: csr_matrix) -> Iterator[tuple[slice, Singles]]:
    for start in range(0, matrix.shape[0], _BLOCK):
        at = slice(start, start + _BLOCK)
        yield at, matrix[at].toarray()


def scores(values: NDArray[np.floating], n_components: int) -> Floats:
    """Compute principal component scores of rows × columns: rows × at most `n_components`."""
    values = np.asarray(values, dtype=np.float64)
    centered = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    return np.asarray(left[:, :n_components] * sizes[:n_components])
