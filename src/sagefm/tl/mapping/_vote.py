"""Votes of the nearest reference spots, over several views, centered or not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sagefm._types import Codes, Floats, Positions
from sagefm.tl._tissue import Tissue
from sagefm.tl._views import Views

_VIEWS = ("pca7", "pca15", "pca25", "niche", "similar")
_SPREAD = "pca15"
"""The view in which the variation of sections is compared."""
_N_COMPONENTS = 20
_N_NEAREST = 15
_BALANCE = 0.5
"""Votes are divided by the frequency of their label to this power."""
_NARROW = 0.6
"""A section that varies less than reference sections do, by this factor, may lack some domains."""
_CLEARLY = 0.2
"""Gain of confidence by which any other section has to be better without centering."""


@dataclass(frozen=True)
class Votes:
    """Fraction of the votes for each label: new spots × labels, and how they were obtained."""

    fractions: Floats
    centered: bool


def vote(tissue: Tissue, codes: Codes, embeddings: Floats | None, n_labels: int) -> Votes:
    """Let the nearest labeled spots vote on the labels of the first batch.

    Centering removes what laboratory and patient add to a section, but also what makes a section
    with few of the domains differ from one with all. Such a section varies less than the reference
    sections do, or its votes are clearly more unanimous if it is not centered.

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
    computed = {centered: _compute(tissue, embeddings, centered) for centered in (True, False)}
    new, labeled = tissue.batches == 0, np.flatnonzero(codes >= 0)
    fractions = {
        centered: sum_of_votes(views, np.flatnonzero(new), labeled, codes[labeled], n_labels)
        for centered, views in computed.items()
    }
    gain = float(fractions[False].max(axis=1).mean() - fractions[True].max(axis=1).mean())
    is_narrow = _relative_spread(computed[True][_SPREAD], tissue.batches) < _NARROW
    centered = gain <= (0 if is_narrow else _CLEARLY)
    return Votes(fractions[centered], centered)


def sum_of_votes(
    views: Mapping[str, Floats], new: Positions, labeled: Positions, codes: Codes, n_labels: int
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


def _compute(tissue: Tissue, embeddings: Floats | None, centered: bool) -> dict[str, Floats]:
    views = Views(tissue, centered=centered)
    computed = {name: views(name)[:, :_N_COMPONENTS] for name in _VIEWS}
    if embeddings is not None:
        computed["embedding"] = views.components(embeddings)[:, :_N_COMPONENTS]
    return computed


def _relative_spread(points: Floats, batches: Codes) -> float:
    """Divide the variance of the first batch by the mean variance of the others."""
    spread = [points[batches == code].var(axis=0).sum() for code in np.unique(batches)]
    return float(spread[0] / max(np.mean(spread[1:]), 1e-12))
