"""Clusters of a Gaussian mixture."""

import numpy as np

from sagefm.stats.mixture import mixture_clusters


def test_clusters_are_found_whatever_their_common_shape():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 60)
    stretched = rng.normal(size=(180, 2)) * [2, 0.2]
    clusters = mixture_clusters(stretched + np.c_[0 * truth, 3 * truth], 3, seed=1)
    pairs = set(zip(truth.tolist(), clusters.tolist(), strict=True))
    assert len(pairs) == len(np.unique(clusters)) == 3
    assert clusters.dtype == np.int64
    again = mixture_clusters(stretched + np.c_[0 * truth, 3 * truth], 3, seed=1)
    np.testing.assert_array_equal(clusters, again)
