"""Clusters of points by a Gaussian mixture."""

import numpy as np

from sagefm._types import Codes, Floats

N_STARTS = 5
_MAX_ITER = 300


def mixture_clusters(points: Floats, n_clusters: int, seed: int = 0) -> Codes:
    """Cluster points (rows) by a Gaussian mixture with one covariance for all components.

    Returns
    -------
    The likeliest component of each point, in the best of 5 fits.
    """
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        n_clusters, covariance_type="tied", n_init=N_STARTS, max_iter=_MAX_ITER, random_state=seed
    )
    return np.asarray(mixture.fit_predict(points), dtype=np.int64)
