"""Communities of the graph of nearest spots in an embedding, as many as are wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._extras import require
from sagefm._progress import stage
from sagefm._types import Codes, Positions, Reals
from sagefm.stats.neighbors import nearly_nearest
from sagefm.stats.sampling import is_many

_NEIGHBORS_IN_EMBEDDING = 15
_RESOLUTIONS_TRIED = 20
_FIRST = 2.0
_FINE, _FINER = 20.0, 10
"""Resolution at which many spots are divided first, into at least so many communities per domain;
if they are fewer, it is doubled."""
_FINE_TRIED = 4


def leiden(space: Reals, n_domains: int, seed: int) -> Codes:
    """Raise the resolution until there are enough communities, then narrow the interval.

    With many spots the neighbors are approximate, and resolutions are tried on the graph of many
    small communities: that of Leiden's own levels. The spots then move between the communities that
    are found there.
    """
    igraph = require("igraph", "leiden", "Leiden clustering")
    stage("finding the nearest of %s spots in the embedding", f"{len(space):,}")
    edges = _find_edges(space)
    graph = igraph.Graph(n=len(space), edges=edges)
    with _seeded(igraph) as reseed:

        def divide(resolution: float, **settings: Any) -> Codes:
            reseed(seed)
            found = graph.community_leiden("modularity", resolution=resolution, **settings)
            return np.array(found.membership, dtype=np.int64)

        if not is_many(len(space)):
            return _search(lambda at: divide(at, n_iterations=4), n_domains, len(space))[0]
        fine = _divide_finely(divide, n_domains)
        coarse, weights = _contract(igraph, edges, fine)

        def join(resolution: float) -> Codes:
            reseed(seed)
            # The modularity of the spots, whose degrees add up to twice the number of edges.
            found = coarse.community_leiden(
                "CPM", resolution=resolution / (2 * len(edges)), n_iterations=-1, **weights
            )
            return np.array(found.membership, dtype=np.int64)

        labels, resolution = _search(join, n_domains, coarse.vcount())
        labels = np.asarray(labels[fine])
        stage("moving spots between communities")
        moved = divide(resolution, n_iterations=1, initial_membership=labels.tolist())
    return moved if moved.max() == labels.max() else labels


@contextmanager
def _seeded(igraph: Any) -> Iterator[Callable[[int], None]]:
    """Let igraph draw from a generator of its own."""
    import random

    igraph.set_random_number_generator(rng := random.Random())
    try:
        yield rng.seed
    finally:
        igraph.set_random_number_generator(random)


def _find_edges(space: Reals) -> Positions:
    """Link each spot with its nearest: edges × 2, each once."""
    from sklearn.neighbors import kneighbors_graph

    n_nearest = min(_NEIGHBORS_IN_EMBEDDING, len(space) - 1)
    if is_many(len(space)):
        near = nearly_nearest(np.asarray(space, dtype=np.float32), n_nearest)
        ends = np.arange(0, near.size + 1, n_nearest)
        entries = np.ones(near.size, dtype=np.int8), near.ravel(), ends
        links = csr_matrix(entries, shape=(len(space), len(space)))
    else:
        links = kneighbors_graph(space, n_nearest)
    rows, columns = links.maximum(links.T).nonzero()
    once = rows < columns
    return np.column_stack([rows[once], columns[once]]).astype(np.int64)


def _search(divide: Callable[[float], Codes], n_domains: int, n_nodes: int) -> tuple[Codes, float]:
    """Find the resolution at which there are as many communities as domains, or nearly."""
    low, high = 0.0, np.inf
    resolution = closest = _FIRST
    best = np.arange(n_nodes)  # each alone, as at a very high resolution
    for number in range(_RESOLUTIONS_TRIED):
        stage("finding communities: resolution %.3g, number %d", resolution, number + 1)
        labels = divide(resolution)
        n_found = int(labels.max()) + 1
        if abs(n_found - n_domains) < abs(best.max() + 1 - n_domains):
            best, closest = labels, resolution
        if n_found == n_domains:
            break
        low, high = (resolution, high) if n_found < n_domains else (low, resolution)
        resolution = 2 * low if high == np.inf else (low + high) / 2
    return best, closest


def _divide_finely(divide: Callable[..., Codes], n_domains: int) -> Codes:
    resolution = _FINE
    for _ in range(_FINE_TRIED):
        stage("finding small communities: resolution %.3g", resolution)
        fine = divide(resolution, n_iterations=1)
        if fine.max() + 1 >= _FINER * n_domains:
            break
        resolution *= 2
    return fine


def _contract(igraph: Any, edges: Positions, fine: Codes) -> tuple[Any, dict[str, Any]]:
    """Build the graph of communities: edges weighted by their number, nodes by their degrees."""
    n_nodes = int(fine.max()) + 1
    between = np.sort(fine[edges], axis=1)
    entries = np.ones(len(edges)), (between[:, 0], between[:, 1])
    joined = csr_matrix(entries, shape=(n_nodes, n_nodes)).tocoo()
    other = joined.row != joined.col
    graph = igraph.Graph(n=n_nodes, edges=np.c_[joined.row, joined.col][other].astype(np.int64))
    degrees = np.bincount(fine[edges].ravel(), minlength=n_nodes)
    return graph, {"weights": joined.data[other].tolist(), "node_weights": degrees.tolist()}
