"""Views of a tissue of many spots: axes of a sample, then all spots in blocks, in float32."""

from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix, vstack

from sagefm._types import Reals, Singles
from sagefm.stats.components import scores_of_many, sparse_axes
from sagefm.stats.sampling import evenly
from sagefm.tl._large_tissue import LargeTissue
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import SMOOTHED, AnyViews, Views, deviations

_N_AXES = 64
_N_COMPONENTS = 20
_MOST_CENTERS, _MOST_VALUES = 10_000, 20_000_000
"""Spots whose 7-spot means the axes are fitted to, and values of these means."""
_CENTERS = 1000
"""Spots whose means are computed at a time."""
_DENSE = 512
"""Spots that are dense at a time."""


class LargeViews(AnyViews):
    """What is known of every spot of a large tissue."""

    n_components = _N_COMPONENTS

    def __init__(self, tissue: LargeTissue, *, centered: bool) -> None:
        super().__init__(tissue, centered=centered)
        self.tissue = tissue
        self._group = np.empty(len(tissue), dtype=np.int64)
        for code, rows in enumerate(self.groups):
            self._group[rows] = code

    def _scores(self, values: Reals, n_components: int) -> Singles:
        return scores_of_many(np.asarray(values, dtype=np.float32), n_components)

    def _center(self, values: Reals) -> Singles:
        centered = values.astype(np.float32)
        for rows in self.groups:
            centered[rows] -= values[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        return centered

    @cached_property
    def axes(self) -> Singles:
        """Genes × axes."""
        tissue = self.tissue
        some = evenly(len(tissue), _MOST_CENTERS)
        first = some[evenly(len(some), _CENTERS)]
        density = tissue.mean_expression(first, SMOOTHED).nnz / len(first)
        some = evenly(len(tissue), min(_MOST_CENTERS, int(_MOST_VALUES / max(density, 1)) + 1))
        matrices = []
        for code in range(len(self.groups)):
            own = some[self._group[some] == code]
            parts = np.array_split(own, -(-len(own) // _CENTERS)) if len(own) else []
            means = [tissue.mean_expression(at, SMOOTHED) for at in parts]
            matrices += [vstack(means, format="csr")] if means else []
        return sparse_axes(matrices, _N_AXES)

    @cached_property
    def spots(self) -> Singles:
        """Spots × axes: the expression of single spots."""
        found = np.empty((len(self.tissue), self.axes.shape[1]), dtype=np.float32)
        for at, counts in self.tissue.blocks():
            found[at] = self.tissue.normalized(counts, at) @ self.axes
        return self._center(found)

    def residuals(self, n_nearest: int) -> Singles:
        """Average how spots deviate from the profile of their batch, each scaled to length 1."""
        tissue, group = self.tissue, self._group
        total = np.zeros((len(self.groups), tissue.counts.n_genes))
        for at, counts in tissue.blocks():
            entries = (np.ones(len(at)), (group[at], np.arange(len(at))))
            member = csr_matrix(entries, shape=(len(total), len(at)))
            total += (member @ counts).toarray()
        profiles = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
        found = np.zeros(self.spots.shape, dtype=np.float32)
        for at, counts in tissue.blocks():
            for start in range(0, len(at), _DENSE):
                some = slice(start, start + _DENSE)
                found[at[some]] = deviations(counts[some], profiles[group[at[some]]]) @ self.axes
        return np.asarray(tissue.mean(0, n_nearest) @ found)


def views_of(tissue: Tissue | LargeTissue, *, centered: bool) -> AnyViews:
    """Prepare the views of a tissue of any size."""
    if isinstance(tissue, LargeTissue):
        return LargeViews(tissue, centered=centered)
    return Views(tissue, centered=centered)
