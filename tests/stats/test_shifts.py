import numpy as np
import pytest

from sagefm.pp.neighborhood import average, nearest
from sagefm.stats.shifts import NullMaps


@pytest.fixture(scope="module")
def points():
    return np.stack(np.meshgrid(np.arange(30.0), np.arange(34.0)), axis=-1).reshape(-1, 2)


@pytest.fixture(scope="module")
def maps(points):
    """More spots than landmarks, so that there is a remainder."""
    return NullMaps.of(points, np.zeros(len(points), dtype=np.int64), 60, seed=1)


def smooth(points, length, seed):
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 1 / length, (2, 24))
    return np.cos(points @ waves + rng.uniform(0, 2 * np.pi, 24)).sum(axis=1)


def drawn(maps, values):
    return np.concatenate(list(maps.draw(values.astype(np.float32))), axis=1)


@pytest.mark.parametrize(("length", "noise"), [(1.5, 0), (3, 0), (3, 3), (8, 1)])
def test_null_maps_vary_as_much_and_are_as_smooth(points, maps, length, noise):
    values = smooth(points, length, 3) + noise * np.random.default_rng(4).normal(size=len(points))
    null = drawn(maps, values)
    around = average(nearest(points, 15), center=False)

    def smoothness(one):
        one = one - one.mean(axis=0)
        return (one * (around @ one)).sum(axis=0) / (one**2).sum(axis=0)

    assert null.std(axis=0) == pytest.approx(np.full(60, values.std()), rel=0.15)
    assert np.median(smoothness(null)) == pytest.approx(smoothness(values), abs=0.06)


def test_null_maps_have_nothing_to_do_with_the_map(points, maps):
    values = smooth(points, 2, 5)
    r = np.corrcoef(values, drawn(maps, values).T)[0, 1:]
    assert abs(r.mean()) < 0.05
    assert abs(r).max() < 0.5


def test_a_trend_stays_a_trend(points, maps):
    """It has no place: a null map that breaks it would make every trend significant."""
    trend = points @ [1.0, 0.5]
    r = np.corrcoef(trend, drawn(maps, trend).T)[0, 1:]
    assert np.median(abs(r)) > 0.5


def test_maps_are_shifted_within_sections(points):
    sections = (points[:, 0] >= 12).astype(np.int64)
    values = np.where(sections == 1, smooth(points, 2, 6), 0.0)
    null = drawn(NullMaps.of(points, sections, 20), values)
    assert abs(null[sections == 0]).max() < 1e-4
    assert (null[sections == 1].std(axis=0) > 0.5 * values[sections == 1].std()).all()


def test_the_order_of_spots_does_not_matter_and_the_seed_does(points):
    points, values = points[:200], smooth(points[:200], 3, 7)
    sections = np.zeros(200, dtype=np.int64)
    order = np.random.default_rng(8).permutation(200)
    null = drawn(NullMaps.of(points, sections, 5), values)
    again = drawn(NullMaps.of(points[order], sections, 5), values[order])
    np.testing.assert_allclose(null[order], again, atol=1e-3)
    assert abs(null - drawn(NullMaps.of(points, sections, 5, seed=1), values)).max() > 0.1
