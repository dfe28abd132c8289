"""Whether the mean of its batch is subtracted from each gene before batches are joined.

It removes what laboratory and patient add to a whole section, but also what distinguishes sections
of different tissue. The domains that each batch has by itself tell: joined domains that agree with
them more are better.
"""

import numpy as np

from sagefm._types import Codes, Positions
from sagefm.stats.mixture import mixture_clusters
from sagefm.stats.sampling import evenly
from sagefm.tl._large_tissue import LargeTissue
from sagefm.tl._large_views import views_of
from sagefm.tl._tissue import Tissue
from sagefm.tl.clustering._consensus import leading

_VIEW = "pca15"
_N_STARTS = 10
_MOST_BATCHES, _MOST_SPOTS = 12, 4800
"""Of many spots, those that are compared."""
_CLEARLY = 0.05
"""Batches are centered unless agreement is better by this much without."""


def agreement_with_batches(
    tissue: Tissue | LargeTissue, n_domains: int, seed: int
) -> dict[bool, float]:
    """Compare joined domains with those that each batch has by itself.

    Returns
    -------
    Mean adjusted Rand index over the batches, if they are centered (True) and if not (False).
    """
    from sklearn.metrics import adjusted_rand_score

    tissue, some = _sampled(tissue)
    codes = tissue.batches[some]
    batches = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    alone: list[Codes] = []
    for code, rows in enumerate(batches):
        at = some[rows] - np.flatnonzero(tissue.batches == code)[0]
        points = leading(views_of(tissue.batch(code), centered=False)(_VIEW))[at]
        alone.append(mixture_clusters(points, min(n_domains, len(rows)), seed, _N_STARTS))
    found = {}
    for centered in (True, False):
        points = leading(views_of(tissue, centered=centered)(_VIEW))[some]
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


def _sampled(
    tissue: Tissue | LargeTissue,
) -> tuple[Tissue | LargeTissue, Positions]:
    """Choose the spots that are compared: of many, some batches and some spots of each."""
    if not isinstance(tissue, LargeTissue):
        return tissue, np.arange(len(tissue))
    chosen = evenly(int(tissue.batches.max()) + 1, _MOST_BATCHES)
    each = _MOST_SPOTS // len(chosen)
    batches = [np.flatnonzero(tissue.batches == code) for code in chosen]
    return tissue.around(np.concatenate([rows[evenly(len(rows), each)] for rows in batches]))


def should_center(agreement: dict[bool, float]) -> bool:
    """Choose by what :func:`agreement_with_batches` returned."""
    return agreement[True] >= agreement[False] - _CLEARLY
