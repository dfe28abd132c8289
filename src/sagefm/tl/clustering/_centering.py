"""Whether the mean of its batch is subtracted from each gene before batches are joined.

It removes what laboratory and patient add to a whole section, but also what distinguishes sections
of different tissue. The domains that each batch has by itself tell: joined domains that agree with
them more are better.
"""

import numpy as np

from sagefm._types import Codes
from sagefm.stats.mixture import mixture_clusters
from sagefm.tl.clustering._consensus import leading
from sagefm.tl.clustering._tissue import Tissue
from sagefm.tl.clustering._views import Views

_VIEW = "pca15"
_N_STARTS = 10
_CLEARLY = 0.05
"""Batches are centered unless agreement is better by this much without."""


def agreement_with_batches(tissue: Tissue, n_domains: int, seed: int) -> dict[bool, float]:
    """Compare joined domains with those that each batch has by itself.

    Returns
    -------
    Mean adjusted Rand index over the batches, if they are centered (True) and if not (False).
    """
    from sklearn.metrics import adjusted_rand_score

    batches = [np.flatnonzero(tissue.batches == code) for code in range(tissue.batches.max() + 1)]
    alone: list[Codes] = []
    for code, rows in enumerate(batches):
        points = leading(Views(tissue.batch(code), centered=False)(_VIEW))
        alone.append(mixture_clusters(points, min(n_domains, len(rows)), seed, _N_STARTS))
    found = {}
    for centered in (True, False):
        points = leading(Views(tissue, centered=centered)(_VIEW))
        joined = mixture_clusters(points, n_domains, seed, _N_STARTS)
        found[centered] = float(
            np.mean(
                [
                    adjusted_rand_score(own, joined[rows])
                    for own, rows in zip(alone, batches, strict=True)
                ]
            )
        )
    return found


def should_center(agreement: dict[bool, float]) -> bool:
    """Choose by what :func:`agreement_with_batches` returned."""
    return agreement[True] >= agreement[False] - _CLEARLY
