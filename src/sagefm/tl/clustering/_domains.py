"""Find tissue domains: clusters of spots in an embedding."""

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._keys import DOMAIN, EMBEDDING
from sagefm._progress import stage
from sagefm._types import Codes, Floats, Positions
from sagefm._uns import record
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import nearest
from sagefm.pp.sections import section_codes
from sagefm.stats.mixture import mixture_clusters

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

Method = Literal["gmm", "kmeans", "leiden"]
_NEIGHBORS_IN_EMBEDDING = 15
_RESOLUTIONS_TRIED = 20
_MANY_SPOTS = 20_000
"""Above it, communities are found in fewer iterations, and fewer resolutions are tried."""
_LINES_TRIED = 4
"""Resolutions that are chosen by a line with many spots; then the interval is halved."""


def domains(
    slide: "AnnData",
    n_domains: int = 7,
    *,
    method: Method = "gmm",
    use_rep: str = EMBEDDING,
    n_components: int = 20,
    smooth: int = 0,
    seed: int = 0,
    slide_key: str | None = None,
    key_added: str = DOMAIN,
) -> None:
    """Cluster the spots of a slide into tissue domains.

    Parameters
    ----------
    slide
        With an embedding in ``obsm`` (see :func:`sagefm.tl.embed`).
    n_domains
        How many domains to find.
    method
        ``"gmm"``: Gaussian mixture with one covariance for all domains (best of 5 starts);
        ``"kmeans"``: k-means (best of 10 starts); ``"leiden"``: Leiden communities of the graph of
        15 nearest neighbors, at the resolution that gives `n_domains`. If no resolution does, the
        closest number of domains is used, with a warning.
    use_rep
        ``obsm`` key to cluster.
    n_components
        Principal components of it that are kept.
    smooth
        How many times each spot then takes the most frequent domain of its 7 nearest spots (itself
        and, on a hexagonal grid, the first ring); 0 leaves the clusters as they are. A small domain
        may lose all its spots, with a warning.
    seed
        Seed of the random number generators.
    slide_key
        ``obs`` column with the section of each spot, if `smooth` is used and the object holds
        several.
    key_added
        Key in ``obs`` for the domains.

    Returns
    -------
    Nothing. Sets ``obs["sagefm_domain"]``, categories "1", "2", … from the largest domain to the
    smallest, and ``uns["sagefm"]["domains"]`` with the settings.

    Raises
    ------
    InputError
        No such embedding, one with missing values or the same in every spot, fewer spots than
        domains, no such method, or a number out of its range.
    """
    for name, value, least in (("n_components", n_components, 1), ("smooth", smooth, 0)):
        if value < least:
            raise InputError(f"{name}={value}: give a whole number from {least} on")
    space = _space(slide, use_rep, n_components, seed)
    if not 1 <= n_domains <= len(space):
        raise InputError(
            f"n_domains={n_domains}: the slide has {len(space)} spots; request 1 to {len(space)}"
        )
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: choose one of {', '.join(get_args(Method))}")
    stage("clustering %s spots by %s", f"{len(space):,}", method)
    labels = _CLUSTER[method](space, n_domains, seed)
    if smooth:
        sections = section_codes(slide, slide_key)
        neighbors = nearest(coordinates(slide), min(7, len(space)), sections)
        for _ in range(smooth):
            labels = _vote(labels, neighbors)
    slide.obs[key_added] = named = _by_size(labels)
    if (n_found := len(named.categories)) != n_domains:
        logger.warning(
            "%d domains requested, %d found by %s%s; request fewer or choose another method",
            n_domains, n_found, method, f" and {smooth} rounds of smoothing" if smooth else "",
        )  # fmt: skip
    record(slide, "domains", {
        "key": key_added,
        "n_domains": n_domains,
        "method": method,
        "use_rep": use_rep,
        "n_components": space.shape[1],
        "smooth": smooth,
        "seed": seed,
        "sagefm": __version__,
    })  # fmt: skip


def _space(slide: "AnnData", use_rep: str, n_components: int, seed: int) -> Floats:
    """Compute the leading principal components of an embedding."""
    from sklearn.decomposition import PCA

    if use_rep not in slide.obsm:
        available = ", ".join(slide.obsm) or "nothing"
        remedy = "run sagefm.tl.embed first" if use_rep == EMBEDDING else "choose one"
        raise InputError(f"obsm[{use_rep!r}]: is not in the slide, which has {available}; {remedy}")
    values = np.asarray(slide.obsm[use_rep], dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"obsm[{use_rep!r}]: has NaN or infinite values; embed the slide again")
    if (values == values[0]).all():
        raise InputError(f"obsm[{use_rep!r}]: is the same in every spot; choose another embedding")
    n_components = min(n_components, *values.shape)
    return np.asarray(PCA(n_components, random_state=seed).fit_transform(values))


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


_CLUSTER: dict[str, "Callable[[Floats, int, int], Codes]"] = {
    "gmm": mixture_clusters,
    "kmeans": _kmeans,
    "leiden": _leiden,
}


def _vote(labels: Codes, neighbors: Positions) -> Codes:
    """Give each spot the most frequent label of its neighborhood, its own where that is a tie."""
    votes = np.zeros((len(labels), labels.max() + 1))
    for column in neighbors.T:
        np.add.at(votes, (np.arange(len(labels)), labels[column]), 1)
    votes[np.arange(len(labels)), labels] += 0.5
    return np.asarray(votes.argmax(axis=1))


def _by_size(labels: Codes) -> "pd.Categorical[Any]":
    """Name labels "1", "2", … from the most to the least frequent."""
    sizes = np.bincount(labels)
    order = [label for label in np.argsort(-sizes, kind="stable") if sizes[label]]
    rank = {label: str(i) for i, label in enumerate(order, start=1)}
    return pd.Categorical([rank[label] for label in labels], categories=list(rank.values()))
