"""Score clusters without labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def separation(space: NDArray[Any], labels: ArrayLike) -> dict[str, float]:
    """Measure how compact and how well separated clusters are.

    Compare methods in one space that is none of their own.

    Parameters
    ----------
    space
        Spots × dimensions.
    labels
        The cluster of each spot.

    Returns
    -------
    ``silhouette`` (-1 to 1) and ``calinski_harabasz``, where more is better, and
    ``davies_bouldin``, where less is. All are NaN if there is only one cluster, or one per spot.
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
    """Compute the fraction of neighbors that have the label of the spot, averaged over spots.

    Parameters
    ----------
    labels
        One per spot.
    neighbors
        Spots × k row numbers, the spot itself first, as :func:`sagefm.pp.nearest` returns
        them.

    Returns
    -------
    0 to 1; NaN without neighbors.
    """
    labels = np.asarray(labels)
    of_neighbors = labels[neighbors[:, 1:]]
    same = of_neighbors == labels[:, None]
    return float(same.mean()) if same.size else float("nan")
