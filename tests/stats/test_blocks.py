import numpy as np
import pytest

from sagefm.pp.neighborhood import nearest
from sagefm.stats.blocked_ridge import BlockedRidge
from sagefm.stats.blocks import N_FOLDS, BlockFolds, BlockSums, divide


@pytest.fixture(scope="module")
def points():
    return np.stack(np.meshgrid(np.arange(24.0), np.arange(20.0)), axis=-1).reshape(-1, 2)


@pytest.fixture(scope="module")
def folds(points):
    sections = np.zeros(len(points), dtype=np.int64)
    return BlockFolds.of(points, sections, nearest(points, 15))


def test_blocks_are_compact_of_similar_size_and_within_sections(points):
    sections = (points[:, 0] > 15).astype(np.int64)
    block = divide(points, sections, 12)
    sizes = np.bincount(block)
    assert len(sizes) == 12
    assert sizes.max() <= 2.1 * sizes.min()
    for number in range(12):
        own = points[block == number]
        assert len(set(sections[block == number])) == 1
        assert np.prod(np.ptp(own, axis=0) + 1) == len(own)  # a rectangle without gaps
        assert np.ptp(own, axis=0).max() <= 2.5 * (np.ptp(own, axis=0).min() + 1)


def test_a_section_has_a_block_of_its_own_even_if_there_are_more_sections_than_blocks(points):
    block = divide(points, points[:, 0].astype(np.int64), 5)
    assert len(np.unique(block)) == 24


def test_no_training_spot_has_a_tested_spot_in_its_neighborhood(points, folds):
    neighbors = nearest(points, 15)
    assert len(folds) == N_FOLDS
    for number in range(len(folds)):
        training = ~folds.near[number]
        tested = folds.fold == number
        assert not tested[neighbors[training]].any()
        assert not training[neighbors[tested]].any()
        assert training.sum() > 100


def test_noise_with_autocorrelation_is_predicted_from_random_spots_but_not_out_of_blocks():
    """Places are predictors: fits that know the neighbors of a spot know the spot."""
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), axis=-1).reshape(-1, 2)
    folds = BlockFolds.of(points, np.zeros(1600, dtype=np.int64), nearest(points, 15))
    places = rng.uniform(0, 40, (250, 2))
    bumps = np.exp(-((points[:, None] - places) ** 2).sum(axis=2) / (2 * 1.5**2))
    bumps = (bumps - bumps.mean(axis=0)) / bumps.std(axis=0)
    waves = rng.normal(0, 1 / 1.5, (20, 2, 24))
    noise = np.cos(points @ waves + rng.uniform(0, 2 * np.pi, (20, 1, 24))).sum(axis=2).T
    noise = (noise - noise.mean(axis=0)).astype(np.float32)

    def r(used):
        predicted = BlockedRidge(lambda _: bumps, used).predict(noise)
        return BlockSums.of(used.block, noise, predicted).correlations()[0].mean()

    at_random = rng.integers(N_FOLDS, size=len(points))
    near = np.arange(N_FOLDS)[:, None] == at_random
    assert r(BlockFolds(at_random, at_random, near)) > 0.6
    assert abs(r(folds)) < 0.1


def test_ridge_finds_a_linear_target_and_is_linear_in_it(points, folds):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(len(points), 6))
    y = (x @ rng.normal(size=(6, 3)) + 0.1 * rng.normal(size=(len(points), 3))).astype(np.float32)
    ridge = BlockedRidge(lambda _: x, folds)
    predicted = ridge.predict(y)
    assert (BlockSums.of(folds.block, y, predicted).correlations() > 0.97).all()
    np.testing.assert_allclose(ridge.predict(-2 * y), -2 * predicted, atol=1e-4)


def test_what_is_tested_on_is_not_fitted_to(points, folds):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(len(points), 4))
    y = rng.normal(size=(len(points), 1)).astype(np.float32)
    changed = y.copy()
    changed[folds.fold == 0] += 100
    ridge = BlockedRidge(lambda _: x, folds)
    tested = folds.fold == 0
    np.testing.assert_allclose(ridge.predict(y)[tested], ridge.predict(changed)[tested], atol=1e-4)


def test_correlations_over_blocks_are_those_of_their_spots():
    rng = np.random.default_rng(3)
    block = rng.integers(4, size=60)
    a, b = rng.normal(size=(2, 60, 2))
    b[:, 1] = 3.0
    sums = BlockSums.of(block, a, b)
    assert sums.correlations()[0] == pytest.approx([np.corrcoef(a[:, 0], b[:, 0])[0, 1], 0])
    twice = np.array([[2.0, 1, 0, 1]])
    rows = np.concatenate([np.flatnonzero(block == k) for k in (0, 0, 1, 3)])
    expected = np.corrcoef(a[rows, 0], b[rows, 0])[0, 1]
    assert sums.correlations(twice)[0, 0] == pytest.approx(expected)
    assert np.isnan(BlockSums.of(block, a, np.full_like(b, np.nan)).correlations()).all()
