"""Leading components of large sparse matrices, each averaged over neighbors and centered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Positions, Reals, Singles

_ROUNDS = 3
_SPARE = 8
_BLOCK = 512
"""Rows that are dense at a time."""
_ROWS = 16_384
"""Rows that are in float64 at a time."""


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
    means = [
        np.asarray(operator.mean(axis=0) @ matrix, dtype=np.float32).ravel()
        for matrix, operator in zip(matrices, operators, strict=True)
    ]
    return _leading_axes(list(map(_Averaged, matrices, operators, means)), n_axes)


def sparse_axes(matrices: Sequence[csr_matrix], n_axes: int) -> Singles:
    """Find the leading principal axes of several sparse matrices together, each centered.

    As :func:`shared_axes` without operators, in sparse products.
    """
    means = [np.asarray(matrix.mean(axis=0), dtype=np.float32).ravel() for matrix in matrices]
    return _leading_axes(list(map(_Centered, matrices, means)), n_axes)


@dataclass(frozen=True)
class _Averaged:
    """A matrix that is averaged and centered when it is multiplied."""

    matrix: csr_matrix
    operator: csr_matrix
    mean: Singles

    def times(self, right: Singles) -> Singles:
        return np.asarray(self.operator @ project(self.matrix, right) - self.mean @ right)

    def transposed_times(self, left: Singles, total: Singles) -> None:
        """Add the product to a total."""
        averaged = np.asarray(self.operator.T @ left, dtype=np.float32)
        for at, block in _blocks(self.matrix):
            total += block.T @ averaged[at]
        total -= np.outer(self.mean, left.sum(axis=0))


@dataclass(frozen=True)
class _Centered:
    """A matrix that is centered when it is multiplied."""

    matrix: csr_matrix
    mean: Singles

    def times(self, right: Singles) -> Singles:
        return np.asarray(self.matrix @ right - self.mean @ right)

    def transposed_times(self, left: Singles, total: Singles) -> None:
        """Add the product to a total."""
        total += self.matrix.T @ left
        total -= np.outer(self.mean, left.sum(axis=0))


_Parts = Sequence[_Averaged] | Sequence[_Centered]


def _leading_axes(parts: _Parts, n_axes: int) -> Singles:
    n_rows, n_columns = sum(p.matrix.shape[0] for p in parts), parts[0].matrix.shape[1]
    n_axes = max(min(n_axes, n_rows - 1, n_columns), 1)
    width = min(n_axes + _SPARE, n_rows, n_columns)
    rows = np.random.default_rng(0).normal(size=(n_rows, width)).astype(np.float32)
    for _ in range(_ROUNDS):
        columns = np.linalg.qr(_transposed_product(parts, rows))[0]
        products = [part.times(columns) for part in parts]
        rows = np.linalg.qr(np.concatenate(products).astype(np.float32))[0]
    return np.asarray(
        np.linalg.svd(_transposed_product(parts, rows), full_matrices=False)[0][:, :n_axes]
    )


def _transposed_product(parts: _Parts, left: Singles) -> Singles:
    total = np.zeros((parts[0].matrix.shape[1], left.shape[1]), dtype=np.float32)
    first = 0
    for part in parts:
        own = left[first : first + part.matrix.shape[0]]
        first += len(own)
        part.transposed_times(own, total)
    return total


def project(matrix: csr_matrix, axes: Singles) -> Singles:
    """Multiply rows × columns, sparse, with columns × axes, dense, in dense blocks."""
    return np.concatenate([block @ axes for _, block in _blocks(matrix)])


def _blocks(matrix: csr_matrix) -> Iterator[tuple[slice, Singles]]:
    for start in range(0, matrix.shape[0], _BLOCK):
        at = slice(start, start + _BLOCK)
        yield at, matrix[at].toarray()


def scores(values: Reals, n_components: int) -> Floats:
    """Compute principal component scores of rows × columns: rows × at most `n_components`."""
    values = np.asarray(values, dtype=np.float64)
    centered = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    return np.asarray(left[:, :n_components] * sizes[:n_components])


def scores_of_many(values: Reals, n_components: int, order: Positions | None = None) -> Singles:
    """Compute principal component scores of many rows, by the covariance of the columns.

    Parameters
    ----------
    order
        Row numbers: the order of the scores, and that in which sums are taken.
    """
    order = np.arange(len(values)) if order is None else order
    blocks = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    mean = np.add.reduce([values[at].sum(axis=0, dtype=np.float64) for at in blocks]) / len(order)
    covariance = np.zeros((len(mean), len(mean)))
    for at in blocks:
        block = values[at] - mean
        covariance += block.T @ block
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :n_components]
    return np.concatenate([((values[at] - mean) @ axes).astype(np.float32) for at in blocks])
