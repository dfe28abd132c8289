"""Clusters of points by one method: a mixture, k-means, or communities of a graph."""

from collections.abc import Callable

import numpy as np

from sagefm._types import Codes, Reals
from sagefm.stats.mixture import mixture_clusters
from sagefm.stats.sampling import evenly, is_many
from sagefm.tl.clustering._leiden import leiden

_SAMPLE = 10_000
"""Spots that the starts of k-means are fitted to where there are many."""


def _kmeans(space: Reals, n_domains: int, seed: int) -> Codes:
    from sklearn.cluster import KMeans

    starts = KMeans(n_domains, n_init=10, random_state=seed)
    if not is_many(len(space)):
        return np.asarray(starts.fit_predict(space))
    centers = starts.fit(space[evenly(len(space), _SAMPLE)]).cluster_centers_
    return np.asarray(KMeans(n_domains, n_init=1, init=centers).fit_predict(space))


CLUSTER: dict[str, Callable[[Reals, int, int], Codes]] = {
    "gmm": mixture_clusters,
    "kmeans": _kmeans,
    "leiden": leiden,
}
"""Name of a method → clusters of points. Many points come in an order without chance."""
