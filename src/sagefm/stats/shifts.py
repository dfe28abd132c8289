"""Null maps: as smooth as a map, but with another place, so that what they match is chance.

A map is divided into modes, the eigenvectors of the centered matrix of negative distances between
spots, and a short-range remainder. Modes of random fields are uncorrelated, so that random signs
give another draw of the same field (Moran spectral randomization, Wagner and Dray 2015); the
remainder is moved on a torus. The lowest modes are close to linear trends, as in a field without
borders. Those of a graph Laplacian, which are flat at the border, make too small p values, and so
do torus shifts, rigid motions and permuted blocks of the whole map, which cut trends (numbers in
docs/results/modalities.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from sagefm._types import Codes, Floats, Positions, Singles
from sagefm.stats.sampling import evenly

_LANDMARKS = 800
"""Spots of a section from which its modes are computed: all, if it has no more."""
_SMALLEST = 1e-7
"""Variance of a mode over that of the first below which it is rounding."""
_VALUES = 10_000_000
"""Values of maps that are drawn at a time."""


@dataclass(frozen=True)
class NullMaps:
    """Null maps of any map on the same spots; the maps of two features go together.

    Attributes
    ----------
    sections
        Rows and modes (spots × modes, orthonormal) of each section.
    signs
        For each section modes × maps, 1 or -1.
    moved
        Spots × maps: the spot from which the remainder comes.
    """

    sections: list[tuple[Positions, Singles]]
    signs: list[Singles]
    moved: NDArray[np.int32]

    @classmethod
    def of(cls, points: Floats, sections: Codes, n_maps: int, seed: int = 0) -> Self:
        """Draw signs and shifts.

        Parameters
        ----------
        points
            Spots × 2.
        sections
            The section of each spot; maps are shifted within them.
        n_maps
            Number of maps.
        seed
            Seed of the signs and the shifts.
        """
        rng = np.random.default_rng(seed)
        found, signs = [], []
        moved = np.empty((len(points), n_maps), dtype=np.int32)
        for code in np.unique(sections):
            rows = np.flatnonzero(sections == code)
            # Whatever the order of the spots, the same maps.
            rows = rows[np.lexsort(points[rows].T)]
            modes = _modes(points[rows])
            found.append((rows, modes))
            signs.append(rng.choice(np.array([-1, 1], dtype=np.float32), (modes.shape[1], n_maps)))
            for number, source in enumerate(_shifts(points[rows], n_maps, rng)):
                moved[rows, number] = rows[source]
        return cls(found, signs, moved)

    @property
    def n_maps(self) -> int:
        """Number of maps."""
        return int(self.moved.shape[1])

    def draw(self, values: Singles) -> Iterator[Singles]:
        """Draw null maps of a map: spots × some maps at a time, of mean 0 in each section."""
        remainder = np.zeros(len(values), dtype=np.float32)
        weights = []
        for rows, modes in self.sections:
            own = values[rows] - values[rows].mean()
            weights.append(modes.T @ own)
            remainder[rows] = own - modes @ weights[-1]
        step = max(_VALUES // len(values), 1)
        for start in range(0, self.n_maps, step):
            some = slice(start, start + step)
            maps = remainder[self.moved[:, some]]
            for (rows, modes), signs, own in zip(self.sections, self.signs, weights, strict=True):
                maps[rows] += modes @ (own[:, None] * signs[:, some])
            yield maps


def _modes(points: Floats) -> Singles:
    """Compute the modes of a section from landmarks (Nyström), by falling variance."""
    n = len(points)
    landmarks = evenly(n, min(_LANDMARKS, n))
    if len(landmarks) < n:
        # In the order of columns of a coarse grid, landmarks are spread over the section.
        landmarks = _along_columns(points, len(landmarks))[landmarks]
    kernel = -cdist(points, points[landmarks])
    among = kernel[landmarks]
    kernel += among.mean() - kernel.mean(axis=1, keepdims=True) - among.mean(axis=0)
    among = kernel[landmarks]
    variances, axes = np.linalg.eigh((among + among.T) / 2)
    kept = variances > _SMALLEST * variances[-1]
    kernel = kernel @ (axes[:, kept] / np.sqrt(variances[kept]))
    kernel -= kernel.mean(axis=0)
    variances, axes = np.linalg.eigh(kernel.T @ kernel)
    kept = variances > _SMALLEST**2 * variances[-1]
    modes = kernel @ (axes[:, kept] / np.sqrt(variances[kept]))
    return np.asarray(modes[:, ::-1], dtype=np.float32)


def _along_columns(points: Floats, n_landmarks: int) -> Positions:
    """Order spots up and down the columns of a grid that has a landmark in each cell."""
    low, extent = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    width = np.sqrt(extent[0] * extent[1] / n_landmarks)
    column = ((points[:, 0] - low[0]) // width).astype(np.int64)
    return np.lexsort((np.where(column % 2, -points[:, 1], points[:, 1]), column))


def _shifts(points: Floats, n_maps: int, rng: np.random.Generator) -> list[Positions]:
    """Shift and mirror spots on a torus: for each map the spot nearest to where each comes from."""
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    # The last column lies beside the first.
    box = np.maximum(extent * (1 + 1 / np.sqrt(len(points))), 1e-9)
    tree = cKDTree(points - low, boxsize=box)
    shifted = []
    for _ in range(n_maps):
        mirrored = (points - low - extent / 2) * rng.choice([-1, 1], 2) + extent / 2
        source = tree.query((mirrored + rng.uniform(0, 1, 2) * box) % box)[1]
        shifted.append(np.asarray(source, dtype=np.int64))
    return shifted
