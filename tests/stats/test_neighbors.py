"""Approximate neighbors of many points."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sagefm.stats import neighbors
from sagefm.stats.neighbors import nearly_nearest


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(30, 8))[rng.integers(0, 30, 6000)] * 3).astype(
        np.float32
    ) + rng.normal(size=(6000, 8)).astype(np.float32)


def test_almost_all_neighbors_are_found_and_by_distance(points):
    near = nearly_nearest(points, 10)
    exact = cKDTree(points).query(points, 11)[1][:, 1:]
    found = [len(np.intersect1d(a, b)) for a, b in zip(near, exact, strict=True)]
    assert np.mean(found) > 9.5
    apart = np.linalg.norm(points[near] - points[:, None], axis=2)
    assert (np.diff(apart, axis=1) > -1e-4).all()
    assert not (near == np.arange(6000)[:, None]).any()
    np.testing.assert_array_equal(near, nearly_nearest(points, 10))


def test_copies_of_a_point_are_its_neighbors_but_not_itself():
    rows = np.repeat(np.arange(40, dtype=np.float32), 20)[:, None] * np.ones(3, dtype=np.float32)
    near = nearly_nearest(rows, 15)
    assert not (near == np.arange(800)[:, None]).any()
    assert (near // 20 == np.arange(800)[:, None] // 20).all()


def test_cells_with_few_points_are_joined(points, monkeypatch):
    monkeypatch.setattr(neighbors, "_IN_A_CELL", 2)
    monkeypatch.setattr(neighbors, "_CELLS", 1)
    near = nearly_nearest(points[:100], 30)
    assert (np.sort(near, axis=1)[:, 1:] != np.sort(near, axis=1)[:, :-1]).all()
