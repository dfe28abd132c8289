"""Domains that many clusterings agree on: of several views, each into several numbers of clusters.

Where a method is made to find exactly as many clusters as are wanted, it often splits a large
domain and merges two thin ones. So each view is also clustered into one to three more.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sagefm._progress import stage
from sagefm._types import Codes, Reals
from sagefm.stats.consensus import Consensus, consensus
from sagefm.stats.mixture import mixture_clusters
from sagefm.stats.sampling import evenly

N_COMPONENTS = 20
_SPOTS_PER_COMPONENT = 4
_MORE_CLUSTERS = (0, 1, 2, 3)
N_STARTS = 30
"""For each of the clusterings; their agreement makes up for the fewer starts."""
_MAX_THREADS = 8
_DIGITS = 9
"""Points that agree to so many are the same: means over all spots of a tiny section are."""
_LOOKED_AT = 2000
"""Points among which there are usually enough that differ."""


def find_consensus(
    views: Mapping[str, Reals], n_domains: int, seed: int, n_starts: int = N_STARTS
) -> Consensus:
    """Cluster all views, and join their clusters.

    Parameters
    ----------
    views
        Name → spots × components.
    """
    stage("joining clusters of %d views into %d domains", len(views), n_domains)
    numbers = [n_domains + more for more in _MORE_CLUSTERS]
    return consensus(cluster_views(views, numbers, seed, n_starts), n_domains)


def cluster_views(
    views: Mapping[str, Reals], numbers: Sequence[int], seed: int, n_starts: int
) -> list[Codes]:
    """Cluster each view into each number of clusters, by a mixture with shared covariance."""
    points = [leading(view) for view in views.values()]
    distinct = [_count_distinct(one, max(numbers)) for one in points]
    jobs = [
        (one, min(number, n)) for number in numbers for one, n in zip(points, distinct, strict=True)
    ]
    # numpy and scikit-learn leave Python's lock for most of the time.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        return list(pool.map(lambda job: mixture_clusters(job[0], job[1], seed, n_starts), jobs))


def _count_distinct(points: Reals, most: int) -> int:
    """Count points that differ; of many points only until there are enough."""
    some = points[evenly(len(points), _LOOKED_AT)]
    if (n_distinct := len(np.unique(some.round(_DIGITS), axis=0))) >= most:
        return n_distinct
    return len(np.unique(points.round(_DIGITS), axis=0))


def leading(view: Reals) -> Reals:
    """Keep the leading components of a view, few for few spots, and scale the first to 1."""
    width = max(min(N_COMPONENTS, len(view) // _SPOTS_PER_COMPONENT), 1)
    points = view[:, :width]
    spread = points[:, 0].std()
    return np.ascontiguousarray(points / spread if spread > 0 else points)
