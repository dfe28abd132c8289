"""Measure how well slides mix and labels separate, by the metrics of scib-metrics."""

import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NEIGHBORS = 90
_COMPONENTS = 20


def batch_mixing(
    embedding: NDArray[Any], labels: ArrayLike, batches: ArrayLike, *, seed: int = 0
) -> dict[str, float]:
    """Measure batch mixing and the separation of labels on 20 principal components.

    Neighbors are exact: the spot itself and its nearest, at most 90.

    Parameters
    ----------
    embedding
        Spots × width, of several slides in one space.
    labels, batches
        Label and slide of each spot. At least two labels must be in two slides.
    seed
        Of the reduction to principal components.

    Returns
    -------
    Numbers from 0 to 1, more is better. Biology: ``silhouette_label``, ``clisi``. Mixing:
    ``silhouette_batch``, ``ilisi``.

    Raises
    ------
    ImportError
        scib-metrics is not installed.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    labels, batches = (np.unique(np.asarray(x), return_inverse=True)[1] for x in (labels, batches))
    values = np.asarray(embedding, dtype=np.float64)
    space = PCA(min(_COMPONENTS, *values.shape), random_state=seed).fit_transform(values)
    near = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(space) - 1)).fit(space)
    distances, rows = near.kneighbors(space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("jax").setLevel(logging.ERROR)  # it warns if there is no GPU
        import scib_metrics
        from scib_metrics.nearest_neighbors import NeighborsResults

        neighbors = NeighborsResults(indices=rows, distances=distances)
        scores = {
            "silhouette_label": scib_metrics.silhouette_label(space, labels),
            "clisi": scib_metrics.clisi_knn(neighbors, labels),
            "silhouette_batch": scib_metrics.silhouette_batch(space, labels, batches),
            "ilisi": scib_metrics.ilisi_knn(neighbors, batches),
        }
    return {name: float(np.clip(value, 0, 1)) for name, value in scores.items()}
