"""What was learned from: near is near, far is far, and other groups set the scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagefm.stats.reference import ReferenceSpots


def cloud(seed, n=300, at=0.0, width=30):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) * np.linspace(3, 0.1, width) + at).astype(np.float32)


def test_tissue_like_the_known_is_not_novel_and_other_tissue_is():
    known = ReferenceSpots.learn([cloud(i) for i in range(4)], list("abcd"))
    assert np.mean(known.novelty(cloud(9))) == pytest.approx(0.5, abs=0.06)
    assert known.novelty(cloud(9, at=8.0)).min() > 0.95


def test_the_scale_is_that_of_other_groups():
    shifted = [cloud(i, at=3.0 * i) for i in range(3)]  # patients far from each other
    between = ReferenceSpots.learn(shifted, list("abc"))
    assert between.novelty(cloud(8, at=1.5)).mean() < 0.6
    within = ReferenceSpots.learn(shifted, list("aaa"))
    assert (within.n_groups, between.n_groups) == (1, 3)
    assert np.median(within.own) < np.median(between.own)


def test_distances_are_those_to_the_five_nearest():
    z = cloud(1, n=60, width=4)
    known = ReferenceSpots.learn([z], ["a"])
    assert len(known.spots) == 60
    new = cloud(2, n=7, width=4)
    apart = np.linalg.norm(known.reduction(new)[:, None] - known.spots[None], axis=2)
    wanted = np.sort(apart, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(known.distance(new), wanted, rtol=1e-5)
    apart = np.linalg.norm(known.spots[:, None] - known.spots[None], axis=2)
    np.testing.assert_allclose(known.own, np.sort(apart, axis=1)[:, 1:6].mean(axis=1), rtol=1e-5)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 5))
def test_any_sizes_of_groups(sizes, seed):
    parts = [cloud(i, n=n, width=6) for i, n in enumerate(sizes)]
    if sum(sizes) < 3:
        parts.append(cloud(99, n=3, width=6))
    known = ReferenceSpots.learn(parts, [str(i) for i in range(len(parts))], seed=seed)
    novelty = known.novelty(cloud(7, n=5, width=6))
    assert ((novelty >= 0) & (novelty <= 1)).all()
    assert np.isfinite(known.own).all()


def test_small_groups_keep_their_spots_where_room_is_short():
    known = ReferenceSpots.learn([cloud(1, n=6000), cloud(2, n=50)], ["a", "b"])
    assert len(known.spots) == 4096
    assert (known.groups == 1).sum() == 50


def test_arrays_make_it_again():
    known = ReferenceSpots.learn([cloud(1), cloud(2)], ["a", "b"])
    again = ReferenceSpots.from_arrays(known.arrays())
    np.testing.assert_allclose(again.distance(cloud(3)), known.distance(cloud(3)), rtol=1e-5)
    assert np.array_equal(again.groups, known.groups)


def test_read_again_it_is_the_very_same():
    known = ReferenceSpots.learn([cloud(1), cloud(2)], ["a", "b"], n_components=30, unit=True)
    again = ReferenceSpots.from_arrays(known.arrays(), width=30)
    assert np.array_equal(again.distance(cloud(3)), known.distance(cloud(3)))
    for name, values in known.arrays().items():
        assert np.array_equal(again.arrays()[name], values)


def test_only_the_direction_may_count():
    known = ReferenceSpots.learn([cloud(1), cloud(2)], ["a", "b"], unit=True)
    z = cloud(3, n=20)
    np.testing.assert_allclose(known.distance(7 * z), known.distance(z), rtol=1e-4)
    both = ReferenceSpots.learn([cloud(1), cloud(2)], ["a", "b"])
    assert (both.distance(7 * z) > 2 * both.distance(z)).mean() > 0.9
    assert np.isfinite(known.distance(np.zeros((1, 30)))).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("own"), "own is missing"),
        (lambda a: a.update(center=a["center"][:-1]), "center 29 is not"),
        (lambda a: a.update(axes=a["axes"][:, :-1]), "spots 600×20 is not"),
        (lambda a: a.update(groups=a["groups"][:, None]), "groups 600×1 is not"),
        (lambda a: a.update(spots=a["spots"][:0], own=a["own"][:0]), "spots 0×20 is not"),
        (lambda a: a.update(own=a["own"] * np.nan), "own 600 is not"),
    ],
)
def test_what_is_damaged_is_not_read(change, said):
    arrays = ReferenceSpots.learn([cloud(1), cloud(2)], ["a", "b"]).arrays()
    change(arrays)
    with pytest.raises(ValueError, match=said):
        ReferenceSpots.from_arrays(arrays, width=30)
