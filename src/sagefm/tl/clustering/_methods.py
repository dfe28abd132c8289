"""Clusters of points by one method: a mixture, k-means, or communities of a graph."""

from collections.abc import Callable

import numpy as np

from sagefm._extras import require
from sagefm._progress import stage
from sagefm._types import Codes, Floats
from sagefm.stats.mixture import mixture_clusters

_NEIGHBORS_IN_EMBEDDING = 15
_RESOLUTIONS_TRIED = 20
_MANY_SPOTS = 20_000
"""Above it, communities are found in fewer iterations, and fewer resolutions are tried."""
_LINES_TRIED = 4
"""Resolutions that are chosen by a line with many spots; then the interval is halved."""


def _kmeans(space: Floats, n_domains: int, seed: int) -> Codes:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(n_domains, n_init=10, random_state=seed).fit_predict(space))


def _leiden(space: Floats, n_domains: int, seed: int) -> Codes:
    """Raise the resolution until there are enough communities, then narrow the interval."""
    import random

    from sklearn.neighbors import kneighbors_graph

    igraph = require("igraph", "leiden", "Leiden clustering")
    stage("finding the nearest of %s spots in the embedding", f"{len(space):,}")
    many = len(space) > _MANY_SPOTS
    points = space.astype(np.float32) if many else space
    links = kneighbors_graph(points, min(_NEIGHBORS_IN_EMBEDDING, len(space) - 1))
    rows, columns = links.maximum(links.T).nonzero()
    once = rows < columns
    graph = igraph.Graph(n=len(space), edges=np.c_[rows[once], columns[once]])
    low, high = (0.0, 1), (np.inf, len(space))  # resolutions, and the communities that they give
    resolution = 2.0
    best = np.arange(len(space))  # every spot alone, as at a very high resolution
    igraph.set_random_number_generator(rng := random.Random())
    try:
        for number in range(_RESOLUTIONS_TRIED):
            stage("finding communities: resolution %.3g, number %d", resolution, number + 1)
            rng.seed(seed)
            communities = graph.community_leiden(
                "modularity", resolution=resolution, n_iterations=2 if many else 4
            )
            labels = np.array(communities.membership)
            n_found = int(labels.max()) + 1
            if abs(n_found - n_domains) < abs(best.max() + 1 - n_domains):
                best = labels
            if n_found == n_domains:
                break
            found = resolution, n_found
            low, high = (found, high) if n_found < n_domains else (low, found)
            if high[0] == np.inf:
                resolution = 2 * low[0]
            elif many and number < _LINES_TRIED:
                resolution = _between(low, high, n_domains)
            else:
                resolution = (low[0] + high[0]) / 2
    finally:
        igraph.set_random_number_generator(random)
    return best


def _between(low: tuple[float, int], high: tuple[float, int], n_domains: int) -> float:
    """Choose the resolution between two where a line through their numbers has `n_domains`."""
    return low[0] + (n_domains - low[1]) / (high[1] - low[1]) * (high[0] - low[0])


CLUSTER: dict[str, Callable[[Floats, int, int], Codes]] = {
    "gmm": mixture_clusters,
    "kmeans": _kmeans,
    "leiden": _leiden,
}
"""Name of a method → clusters of points."""
