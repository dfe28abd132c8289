"""Principal components that are scaled to standard deviation 1."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats

_MIN_RATIO = 1e-4
"""Smallest standard deviation of a component, relative to the first: below it is rounding."""
_ZERO = 1e-10


@dataclass(frozen=True)
class WhitenedPCA:
    """Principal components, each of standard deviation 1 in the rows that they are fitted to."""

    center: Floats
    """Mean of each column."""
    axes: Floats
    """Width × components."""

    def __call__(self, z: NDArray[Any]) -> Floats:
        """Reduce rows × width to rows × components."""
        return np.asarray(z @ self.axes - self.center @ self.axes, dtype=np.float64)

    @classmethod
    def fit(cls, z: NDArray[Any], n_components: int, seed: int = 0) -> Self:
        """Fit at most `n_components`, and no more than the rank: scaling would inflate the rest.

        Components are scaled, not columns: scaling the columns first would bury the leading
        directions of an embedding under its columns of noise.
        """
        from sklearn.decomposition import PCA

        with np.errstate(invalid="ignore"):  # it divides by zero if all rows are equal
            pca = PCA(min(n_components, len(z) - 1, z.shape[1]), random_state=seed).fit(z)
        spread = np.sqrt(np.asarray(pca.explained_variance_, dtype=np.float64))
        rank = int((spread > _MIN_RATIO * spread[0]).sum())
        scale = spread[:rank] if rank and spread[0] > _ZERO else np.ones(1)
        axes = np.asarray(pca.components_[: len(scale)], dtype=np.float64).T / scale
        return cls(np.asarray(pca.mean_, dtype=np.float64), axes)
