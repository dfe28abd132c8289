"""How results are measured: one readout for every method, spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.tl.domains import Method, domains

if TYPE_CHECKING:
    from anndata import AnnData


def domain_recovery(
    slide: "AnnData",
    label_key: str,
    embeddings: Mapping[str, NDArray[Any]],
    *,
    methods: Sequence[Method] = ("gmm",),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    n_components: int = 20,
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
    import anndata as ad
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if label_key not in slide.obs:
        raise InputError(f"obs[{label_key!r}]: no such column; there is {', '.join(slide.obs)}")
    truth = slide.obs[label_key]
    labeled = truth.notna().to_numpy()
    n_domains = truth[labeled].nunique()
    if n_domains < 2:
        raise InputError(f"obs[{label_key!r}]: has {n_domains} labels; two are needed at least")
    for name, embedding in embeddings.items():
        if np.ndim(embedding) != 2 or len(embedding) != slide.n_obs:
            raise InputError(
                f"embedding {name!r}: has the shape {np.shape(embedding)}; give one row for each "
                f"of the {slide.n_obs} spots"
            )
    work = ad.AnnData(obs=slide.obs[[]], obsm={k: np.asarray(v) for k, v in embeddings.items()})
    rows = []
    for name in embeddings:
        for method in methods:
            for seed in seeds:
                domains(
                    work, n_domains, method=method, use_rep=name, n_components=n_components,
                    seed=seed, key_added="found",
                )  # fmt: skip
                pair = (truth[labeled].astype(str), work.obs["found"][labeled])
                rows.append(
                    {
                        "embedding": name,
                        "method": method,
                        "seed": seed,
                        "ari": adjusted_rand_score(*pair),
                        "nmi": normalized_mutual_info_score(*pair),
                        "n_spots": int(labeled.sum()),
                    }
                )
    return pd.DataFrame(rows)
