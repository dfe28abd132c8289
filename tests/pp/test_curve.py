"""The order along a Hilbert curve: everyone once, and neighbors next to each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sagefm.pp.curve import along_curve

steady = settings(derandomize=True, deadline=None)
POINTS = st.integers(1, 60).flatmap(
    lambda n: arrays(np.int64, (n, 2), elements=st.integers(0, 2**15))
)


def grid(side):
    return np.argwhere(np.ones((side, side))).astype(float)


@steady
@given(POINTS)
def test_every_point_comes_once(points):
    assert sorted(along_curve(points.astype(float)).tolist()) == list(range(len(points)))


@pytest.mark.parametrize("level", range(1, 7))
def test_on_a_full_grid_each_step_leads_to_a_neighbor(level):
    points = np.random.default_rng(level).permutation(grid(2**level))
    steps = np.abs(np.diff(points[along_curve(points)], axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_every_quarter_is_one_piece_down_to_the_smallest():
    points = grid(16)
    order = along_curve(points)
    for side in (8, 4, 2):
        cells = (points[order] // side) @ [100, 1]
        assert np.count_nonzero(np.diff(cells)) == (16 // side) ** 2 - 1


@steady
@given(POINTS, st.integers(-(2**20), 2**20), st.integers(-30, 30))
def test_neither_place_nor_size_matter(points, shift, doublings):
    points = points.astype(float)
    moved = (points + np.array([shift, -3 * shift])) * 2.0**doublings
    np.testing.assert_array_equal(along_curve(moved), along_curve(points))


@steady
@given(st.integers(1, 30), st.floats(-1e6, 1e6))
def test_points_in_one_place_keep_their_order(n, where):
    assert along_curve(np.full((n, 2), where)).tolist() == list(range(n))


@pytest.mark.parametrize("toward", [(1, 0), (0, 1), (3, 0), (0, -1)])
def test_points_on_a_line_come_from_one_end_to_the_other(toward):
    at = np.random.default_rng(0).permutation(100)
    order = at[along_curve(np.outer(at, toward).astype(float))]
    assert order.tolist() in (list(range(100)), list(range(99, -1, -1)))


def test_ties_go_by_row():
    points = np.repeat(grid(4), 3, axis=0)
    order = along_curve(points).reshape(-1, 3)
    assert (np.diff(order, axis=1) == 1).all()
    assert (order[:, 0] % 3 == 0).all()


def test_spots_that_follow_each_other_lie_near_each_other(slide):
    points = slide.obsm["spatial"]
    step = np.linalg.norm(np.diff(points[along_curve(points)], axis=0), axis=1)
    between = np.linalg.norm(points[:, None] - points, axis=2)
    nearest = np.median(np.sort(between, axis=1)[:, 1])
    assert np.median(step) <= 1.01 * nearest
    assert step.mean() < 2 * nearest
