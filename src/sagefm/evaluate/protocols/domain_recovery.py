"""Compare domains with labels, by one readout for every embedding and over several seeds."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.tl.clustering import Method, domains

if TYPE_CHECKING:
    from anndata import AnnData

READ_COMPONENTS = 20
"""Principal components of an embedding that are clustered."""


def domain_recovery(
    slide: "AnnData",
    label_key: str,
    embeddings: Mapping[str, NDArray[Any]],
    *,
    methods: Sequence[Method] = ("gmm",),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    n_components: int = READ_COMPONENTS,
) -> pd.DataFrame:
    """Cluster embeddings into as many domains as there are labels, and compare with the labels.

    Every embedding gets the same readout: its leading principal components, the same clustering,
    the same seeds. Spots without a label are clustered and not counted.

    Parameters
    ----------
    slide
        With labels.
    label_key
        ``obs`` column with the labels.
    embeddings
        Name → spots × width.
    methods
        Clustering methods of :func:`sagefm.tl.domains`.
    seeds
        One clustering each.
    n_components
        Principal components that are kept of each embedding.

    Returns
    -------
    One row per embedding, method and seed: embedding, method, seed, ari (adjusted Rand index), nmi
    (normalized mutual information), n_spots (labeled).

    Raises
    ------
    InputError
        No such column, fewer than two labels, or an embedding without one row per spot.
    """
    if label_key not in slide.obs:
        raise InputError(f"obs[{label_key!r}]: no such column; obs has {', '.join(slide.obs)}")
    truth = slide.obs[label_key]
    n_domains = truth.nunique()
    if n_domains < 2:
        raise InputError(f"obs[{label_key!r}]: has {n_domains} labels; at least two are needed")
    for name, embedding in embeddings.items():
        if np.ndim(embedding) != 2 or len(embedding) != slide.n_obs:
            raise InputError(
                f"embedding {name!r}: has the shape {np.shape(embedding)}; give one row for each "
                f"of the {slide.n_obs} spots"
            )
    rows = []
    for name, method, seed in product(embeddings, methods, seeds):
        if (method, seed) == (methods[0], seeds[0]):
            space = leading_components(embeddings[name], n_components)
        clusters = cluster(name, space, n_domains, method=method, seed=seed)
        rows.append(
            {
                "embedding": name,
                "method": method,
                "seed": seed,
                **agreement(truth, clusters),
                "n_spots": int(truth.notna().sum()),
            }
        )
    return pd.DataFrame(rows)


def leading_components(values: NDArray[Any], n_components: int = READ_COMPONENTS) -> NDArray[Any]:
    """Reduce an embedding to its leading principal components, once for all clusterings.

    One that has no more columns, or that is not finite, is returned as it is:
    :func:`sagefm.tl.domains` rotates the first and rejects the second.
    """
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    values = np.asarray(values)
    if values.shape[1] <= n_components or len(values) <= n_components:
        return values
    if not np.isfinite(values).all():
        return values
    with threadpool_limits(1):  # more threads cost more than they save
        return np.asarray(PCA(n_components, random_state=0).fit_transform(values.astype(float)))


def cluster(
    name: str,
    values: NDArray[Any],
    n_domains: int,
    *,
    method: Method = "gmm",
    seed: int,
) -> NDArray[np.str_]:
    """Cluster the leading components of an embedding into domains: the readout of every method.

    Parameters
    ----------
    name
        Name of the embedding in error messages.
    values
        Spots × width, of :func:`leading_components`.
    n_domains, method, seed
        As for :func:`sagefm.tl.domains`.

    Returns
    -------
    The domain of each spot: "1" is the largest, "2" the next, …

    Raises
    ------
    InputError
        The embedding is not finite or the same in every spot, or there are fewer spots than
        domains.
    """
    import anndata as ad
    from threadpoolctl import threadpool_limits

    spots = pd.DataFrame(index=pd.RangeIndex(len(values)).astype(str))
    work = ad.AnnData(obs=spots, obsm={name: np.asarray(values)})
    # Matrices are small: on a busy machine, threads cost ten times what they save.
    with threadpool_limits(1):
        domains(
            work, n_domains, method=method, use_rep=name, n_components=np.shape(values)[1],
            seed=seed, key_added="domain",
        )  # fmt: skip
    return np.asarray(work.obs["domain"], dtype=str)


def agreement(truth: "pd.Series[Any]", domains: NDArray[np.str_]) -> dict[str, float]:
    """Compare domains with labels, on the spots that have a label.

    Returns
    -------
    ``ari`` (adjusted Rand index, on average 0 for random domains) and ``nmi`` (normalized mutual
    information).
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labeled = truth.notna().to_numpy()
    pair = truth[labeled].astype(str), domains[labeled]
    return {
        "ari": float(adjusted_rand_score(*pair)),
        "nmi": float(normalized_mutual_info_score(*pair)),
    }
