"""One clustering from many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from sagefm.stats.consensus import consensus


def noisy(truth, n_clusterings, wrong, seed):
    """Clusterings that each give some points a random cluster, and name clusters at random."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_clusterings):
        codes = truth.copy()
        changed = rng.random(len(truth)) < wrong
        codes[changed] = rng.integers(truth.max() + 1, size=changed.sum())
        found.append(rng.permutation(truth.max() + 1)[codes])
    return found


TRUTH = np.repeat(np.arange(4), [80, 60, 40, 20])


def test_many_noisy_clusterings_agree_on_the_truth():
    members = noisy(TRUTH, 15, 0.3, seed=0)
    found = consensus(members, 4)
    singles = [adjusted_rand_score(TRUTH, codes) for codes in members]
    assert max(singles) < 0.7
    assert adjusted_rand_score(TRUTH, found.labels) > 0.97
    np.testing.assert_allclose(found.membership.sum(axis=1), 1)
    assert (found.membership >= 0).all()


def test_where_clusterings_disagree_membership_is_low():
    members = noisy(TRUTH, 15, 0.05, seed=1)
    for at, codes in enumerate(members):
        codes[:10] = codes[80 if at % 2 else 20]  # half of them put these with the next cluster
    found = consensus(members, 4)
    sure = found.membership[np.arange(200), found.labels]
    assert sure[:10].max() < 0.65 < sure[15:80].mean()


def test_points_beyond_the_first_are_assigned_by_their_clusters():
    members = noisy(TRUTH, 15, 0.2, seed=2)
    few = consensus(members, 4, max_points=60)
    assert adjusted_rand_score(few.labels, consensus(members, 4).labels) > 0.95


def test_a_few_outliers_are_no_cluster():
    truth = np.repeat(np.arange(3), [298, 298, 4])
    found = consensus([truth] * 3 + [np.minimum(truth, 1)] * 2, 2)
    assert np.bincount(found.labels).min() > 250


def test_clusters_that_share_points_merge_first():
    fine, coarse = np.repeat(np.arange(4), 50), np.repeat([0, 0, 1, 1], 50)
    found = consensus([fine, fine, coarse, fine], 4)
    merges = found.merges()
    assert merges.shape == (3, 3)
    label_of = found.labels[::50]
    pairs = {frozenset(label_of[:2]), frozenset(label_of[2:])}
    assert {frozenset(row[:2].astype(int)) for row in merges[:2]} == pairs
    assert merges[0, 2] > merges[2, 2]


@pytest.mark.parametrize("n_clusters", [1, 200])
def test_extreme_numbers(n_clusters):
    members = [np.arange(200), np.arange(200)[::-1].copy()]
    found = consensus(members, n_clusters)
    assert len(np.unique(found.labels)) == n_clusters


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_names_of_clusters_do_not_matter(seed):
    members = noisy(TRUTH, 6, 0.3, seed)
    rng = np.random.default_rng(seed)
    renamed = [rng.permutation(4)[codes] for codes in members]
    one, other = consensus(members, 4).labels, consensus(renamed, 4).labels
    assert adjusted_rand_score(one, other) == 1
