"""Votes of the nearest reference spots, over several views, centered or not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sagefm._types import Codes, Floats, Positions, Reals
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import Views

_VIEWS = ("pca7", "pca15", "pca25", "niche", "similar")
_COMPARED = "pca15"
"""The view in which sections are compared."""
_N_COMPONENTS = 20
_N_NEAREST = 15
_BALANCE = 0.5
"""Votes are divided by the frequency of their label to this power."""
_MOST_BETWEEN = 1.0
"""Variance between sections, as a multiple of that within, above which they are centered."""


@dataclass(frozen=True)
class Votes:
    """Fraction of the votes for each label: new spots × labels, and how they were obtained."""

    fractions: Floats
    centered: bool


def vote(tissue: Tissue, codes: Codes, embeddings: Floats | None, n_labels: int) -> Votes:
    """Let the nearest labeled spots vote on the labels of the first batch.

    Centering removes what laboratory and patient add to a section, but also what makes a section
    with few of the domains differ from one with all. So sections are centered where they differ
    more from each other than their spots do.

    Parameters
    ----------
    tissue
        The new section, batch 0, and the reference sections.
    codes
        The label of each spot of the tissue; -1 where it has none.
    embeddings
        Spots × width; one more view, if given.
    n_labels
        How many labels there are.
    """
    computed = _compute(tissue, embeddings, centered=False)
    centered = _between(computed[_COMPARED], tissue.batches) > _MOST_BETWEEN
    if centered:
        computed = _compute(tissue, embeddings, centered=True)
    new, labeled = np.flatnonzero(tissue.batches == 0), np.flatnonzero(codes >= 0)
    return Votes(sum_of_votes(computed, new, labeled, codes[labeled], n_labels), centered)


def sum_of_votes(
    views: Mapping[str, Reals], new: Positions, labeled: Positions, codes: Codes, n_labels: int
) -> Floats:
    """Compute the fraction of votes for each label, averaged over views: new spots × labels."""
    weights = 1 / np.maximum(np.bincount(codes, minlength=n_labels), 1) ** _BALANCE
    total = np.zeros((len(new), n_labels))
    for points in views.values():
        nearest = cKDTree(points[labeled]).query(points[new], min(_N_NEAREST, len(labeled)))[1]
        votes = np.zeros_like(total)
        for column in codes[nearest.reshape(len(new), -1)].T:
            votes[np.arange(len(new)), column] += weights[column]
        total += votes / votes.sum(axis=1, keepdims=True)
    return np.asarray(total / len(views))


def _compute(tissue: Tissue, embeddings: Floats | None, *, centered: bool) -> dict[str, Reals]:
    views = Views(tissue, centered=centered)
    computed = {name: views(name)[:, :_N_COMPONENTS] for name in _VIEWS}
    if embeddings is not None:
        computed["embedding"] = views.components(embeddings)[:, :_N_COMPONENTS]
    return computed


def _between(points: Reals, batches: Codes) -> float:
    """Divide the variance between the means of batches by the mean variance within them."""
    groups = [points[batches == code] for code in np.unique(batches)]
    between = np.array([group.mean(axis=0) for group in groups]).var(axis=0).sum()
    within = np.mean([group.var(axis=0).sum() for group in groups])
    return float(between / max(within, 1e-12))
