"""How good clusters look without any labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def separation(space: NDArray[Any], labels: ArrayLike) -> dict[str, float]:
    """Measure how compact clusters are and how far apart.

    Compare methods on one space that belongs to none of them.

    Parameters
    ----------
    space
        Spots × dimensions.
    labels
        The cluster of each spot.

    Returns
    -------
    ``silhouette`` (-1 to 1) and ``calinski_harabasz``, where more is better, and
    ``davies_bouldin``, where less is. All are NaN where there is one cluster, or each spot is one.
    """
    from sklearn import metrics

    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    defined = 2 <= len(np.unique(labels)) < len(labels)
    indices = {
        "silhouette": metrics.silhouette_score,
        "calinski_harabasz": metrics.calinski_harabasz_score,
        "davies_bouldin": metrics.davies_bouldin_score,
    }
    return {
        name: float(index(space, labels)) if defined else float("nan")
        for name, index in indices.items()
    }


def spatial_coherence(labels: ArrayLike, neighbors: NDArray[np.int64]) -> float:
    """Share of the nearest spots that have the label of the spot, averaged over spots.

    Parameters
    ----------
    labels
        One per spot.
    neighbors
        Spots × k row numbers, the spot itself first, as :func:`sagefm.pp.nearest` gives them. With
        k = 7 the six nearest spots count.

    Returns
    -------
    0 to 1; NaN where there are no neighbors.
    """
    labels = np.asarray(labels)
    around = labels[neighbors[:, 1:]]
    return float((around == labels[:, None]).mean()) if around.size else float("nan")
