"""Views of a tissue: for each spot some numbers about it and its neighborhood, without a model.

All views are computed in the leading axes of the expression of 7-spot means, so the many genes are
visited once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._types import Floats, Reals, Singles
from sagefm.stats.components import project, scores, shared_axes
from sagefm.stats.poisson import log1p_mean
from sagefm.tl._layout import Layout
from sagefm.tl._tissue import Tissue

_N_AXES = 100
SMOOTHED = 7
"""Spots whose mean the axes are fitted to: single spots are mostly counting noise."""
N_COMPONENTS = 40
_SPOT_COMPONENTS, _RING_COMPONENTS, _COMPARED = 40, 20, 15
_LONGEST = 0.75
"""Quantile of the lengths of spots beyond which they are shortened, where batches are joined."""
_BLOCK = 512


class AnyViews(ABC):
    """What is known of every spot of a tissue, whatever its size.

    Parameters
    ----------
    tissue
        Sorted spots.
    centered
        Whether the mean of its batch is subtracted from each gene.
    """

    n_components = N_COMPONENTS

    def __init__(self, tissue: Layout, *, centered: bool) -> None:
        self._layout = tissue
        codes = tissue.batches if centered else np.zeros(len(tissue), dtype=np.int64)
        self.groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]

    def __call__(self, name: str) -> Reals:
        """Compute a view: spots × at most 40 principal components."""
        return self.components(VIEWS[name](self))

    def components(self, values: Reals) -> Reals:
        """Reduce numbers of each spot to principal components, centered as the views are.

        Where batches are joined, the spots that deviate most are shortened: otherwise the domains
        divide the batch whose counts are deepest, and the others are left whole.
        """
        values = self._center(values)
        if len(self.groups) > 1:
            length = np.linalg.norm(values, axis=1, keepdims=True)
            longest = np.quantile(length, _LONGEST)
            values = values * np.minimum(1, longest / np.maximum(length, 1e-12))
        return self._scores(values, self.n_components)

    @property
    @abstractmethod
    def spots(self) -> Reals:
        """Spots × axes: the expression of single spots."""

    @abstractmethod
    def residuals(self, n_nearest: int) -> Reals:
        """Average how spots deviate from the profile of their batch, each scaled to length 1."""

    @abstractmethod
    def _scores(self, values: Reals, n_components: int) -> Reals:
        """Compute principal component scores."""

    @abstractmethod
    def _center(self, values: Reals) -> Reals:
        """Subtract the mean of each group, in a copy."""

    def smoothed(self, n_nearest: int) -> Reals:
        """Average expression over the nearest spots."""
        return np.asarray(self._layout.mean(0, n_nearest) @ self.spots)

    def niche(self, n_nearest: int) -> Reals:
        """Average the components of single spots over the nearest spots (NichePCA)."""
        own = self._scores(self.spots, _SPOT_COMPONENTS)
        return np.asarray(self._layout.mean(0, n_nearest) @ own)

    def rings(self) -> Reals:
        """Join the components of a spot and their means over rings 1, 2 and 3 (CellCharter)."""
        own = self._scores(self.spots, _RING_COMPONENTS)
        rings = [(1, 7), (7, 19), (19, 37)]
        return np.hstack([own, *(self._layout.mean(*ring) @ own for ring in rings)])

    def similar(self, n_nearest: int) -> Reals:
        """Average expression over the nearest spots, more over those whose 7-spot means agree."""
        near = self._layout.neighbors[:, :n_nearest]
        points = self._scores(self._center(self.smoothed(SMOOTHED)), _COMPARED)
        squared = np.empty(near.shape)
        for start in range(0, len(near), _BLOCK):
            rows = slice(start, start + _BLOCK)
            squared[rows] = ((points[near[rows]] - points[rows, None]) ** 2).sum(axis=2)
        there = near[:, 1:] >= 0
        usual = float(np.median(squared[:, 1:][there])) if there.any() else 1.0
        weights = np.where(near >= 0, np.exp(-squared / max(usual, 1e-12)), 0)
        return np.asarray(self._layout.weighted(near, weights) @ self.spots)


class Views(AnyViews):
    """What is known of every spot of a tissue."""

    def __init__(self, tissue: Tissue, *, centered: bool) -> None:
        super().__init__(tissue, centered=centered)
        self.tissue = tissue

    def _scores(self, values: Reals, n_components: int) -> Floats:
        return scores(values, n_components)

    def _center(self, values: Reals) -> Floats:
        centered = np.empty(values.shape)
        for rows in self.groups:
            centered[rows] = values[rows] - values[rows].mean(axis=0)
        return centered

    @cached_property
    def axes(self) -> Singles:
        """Genes × axes."""
        operator, expression = self.tissue.mean(0, SMOOTHED), self.tissue.expression
        matrices = [expression[rows] for rows in self.groups]
        return shared_axes(matrices, [operator[rows][:, rows] for rows in self.groups], _N_AXES)

    @cached_property
    def spots(self) -> Floats:
        """Spots × axes: the expression of single spots."""
        return self._center(project(self.tissue.expression, self.axes).astype(np.float64))

    def residuals(self, n_nearest: int) -> Floats:
        """Average how spots deviate from the profile of their batch, each scaled to length 1."""
        counts = self.tissue.counts
        directions = np.zeros(self.spots.shape)
        for rows in self.groups:
            total = np.asarray(counts[rows].sum(axis=0, dtype=np.float64)).ravel()
            profile = total / max(total.sum(), 1)
            for at in np.array_split(rows, -(-len(rows) // _BLOCK)):
                directions[at] = deviations(counts[at], profile) @ self.axes
        return np.asarray(self.tissue.mean(0, n_nearest) @ directions)


def deviations(counts: csr_matrix, profile: Floats) -> Floats:
    """Compute how counts deviate from a profile, or each row from its own, scaled to length 1."""
    dense = counts.toarray()
    sizes = dense.sum(axis=1, keepdims=True, dtype=np.float64)
    deviation = np.log1p(dense) - log1p_mean(sizes * profile)
    length = np.linalg.norm(deviation, axis=1, keepdims=True)
    return np.asarray(deviation / np.maximum(length, 1e-12))


VIEWS: dict[str, Callable[[AnyViews], Reals]] = {
    "pca7": partial(AnyViews.smoothed, n_nearest=7),
    "pca15": partial(AnyViews.smoothed, n_nearest=15),
    "pca25": partial(AnyViews.smoothed, n_nearest=25),
    "niche": partial(AnyViews.niche, n_nearest=25),
    "similar": partial(AnyViews.similar, n_nearest=25),
    "rings": AnyViews.rings,
    # A subclass computes it.
    "residuals": lambda views: views.residuals(15),
}
"""Name → how to compute it."""
CONSENSUS = ("pca7", "pca15", "pca25", "niche", "similar")
"""Views whose clusters are joined by default: chosen on labeled training and validation slides."""
