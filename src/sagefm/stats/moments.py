"""Mean and variance of columns, of all rows at once or merged block by block."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Positions


@dataclass(frozen=True)
class ColumnMoments:
    """Mean and variance of each column over some rows."""

    n: int
    """Number of rows."""
    mean: Floats
    variance: Floats

    @classmethod
    def none(cls, n_columns: int) -> Self:
        """Begin without rows."""
        return cls(0, np.zeros(n_columns), np.zeros(n_columns))

    @classmethod
    def of(cls, values: Any) -> Self:
        """Compute them of a matrix, sparse or dense."""
        if not isinstance(values, csr_matrix):
            return cls(len(values), values.mean(axis=0), values.var(axis=0))
        mean = np.asarray(values.mean(axis=0)).ravel()
        squares = np.asarray(values.multiply(values).mean(axis=0)).ravel()
        return cls(values.shape[0], mean, np.maximum(squares - mean**2, 0))

    @property
    def spread(self) -> Floats:
        """Standard deviation of each column."""
        return np.sqrt(self.variance)

    def at(self, columns: Positions) -> "ColumnMoments":
        """Keep some columns."""
        return ColumnMoments(self.n, self.mean[columns], self.variance[columns])

    def __add__(self, other: "ColumnMoments") -> "ColumnMoments":
        """Merge with those of other rows (Chan, Golub & LeVeque 1983)."""
        n = self.n + other.n
        a, b, apart = self.n / n, other.n / n, other.mean - self.mean
        variance = a * self.variance + b * other.variance + a * b * apart**2
        return ColumnMoments(n, self.mean + b * apart, variance)
