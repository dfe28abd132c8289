import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from sagefm.evaluate.metrics.clusters import separation, spatial_coherence
from sagefm.pp import nearest, simulate


def test_the_indices_of_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    space = rng.normal(size=(60, 4)) + labels[:, None]
    wanted = {
        "silhouette": metrics.silhouette_score(space, labels),
        "calinski_harabasz": metrics.calinski_harabasz_score(space, labels),
        "davies_bouldin": metrics.davies_bouldin_score(space, labels),
    }
    assert separation(space, labels) == pytest.approx(wanted)
    assert separation(space, labels.astype(str)) == pytest.approx(wanted)


def test_silhouette_by_hand():
    found = separation(np.array([[0.0], [1.0], [10.0]]), ["a", "a", "b"])
    assert found["silhouette"] == pytest.approx((9 / 10 + 8 / 9 + 0) / 3)


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [1, 2, 3, 4], [1]])
def test_undefined_is_missing(labels):
    space = np.arange(len(labels), dtype=float)[:, None]
    assert all(math.isnan(value) for value in separation(space, labels).values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_any_clusters_give_numbers_in_range_or_nothing(rows):
    values = np.array(rows, dtype=float)
    found = separation(values[:, :2], values[:, 2])
    n_labels = len(set(values[:, 2]))
    if 2 <= n_labels < len(rows):
        assert -1 <= found["silhouette"] <= 1
        assert found["calinski_harabasz"] >= 0
        assert found["davies_bouldin"] >= 0
    else:
        assert all(map(math.isnan, found.values()))


def test_coherence_by_hand():
    near = nearest(np.c_[np.arange(4.0), np.zeros(4)], 3)  # spots on a line, two around each
    assert near[:, 1:].tolist() == [[1, 2], [0, 2], [1, 3], [2, 1]]
    assert spatial_coherence(["a", "a", "a", "b"], near) == pytest.approx((2 + 2 + 1 + 0) / 8)
    assert spatial_coherence(["a"] * 4, near) == 1
    assert math.isnan(spatial_coherence(["a"], np.zeros((1, 1), dtype=np.int64)))


def test_domains_are_more_coherent_than_shuffled_ones():
    slide = simulate(200, seed=4)
    near = nearest(slide.obsm["spatial"], 7)
    labels = slide.obs["domain"].astype(str).to_numpy()
    shuffled = np.random.default_rng(0).permutation(labels)
    by_chance = ((slide.obs["domain"].value_counts() / 200) ** 2).sum()
    assert spatial_coherence(labels, near) > 0.7
    assert spatial_coherence(shuffled, near) == pytest.approx(by_chance, abs=0.06)
