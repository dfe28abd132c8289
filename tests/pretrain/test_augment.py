"""Tiles that are made shallower, or lose genes."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sagefm.pretrain.augment import LEAST_DEPTH, LEAST_GENES, Augmentation

N_SPOTS, N_GENES = 40, 900


@pytest.fixture
def counts():
    rates = np.random.default_rng(0).gamma(0.5, 4, N_GENES)
    return csr_matrix(np.random.default_rng(1).poisson(rates, (N_SPOTS, N_GENES)), dtype=np.float32)


@pytest.fixture
def measured():
    return np.arange(N_GENES) < 800


def test_nothing_is_done_unless_it_is_asked_for(counts, measured):
    after, genes = Augmentation()(counts, measured, np.random.default_rng(0))
    assert after is counts
    assert genes is measured


@pytest.mark.parametrize("seed", range(8))
def test_a_thinned_tile_has_a_fraction_of_the_counts_of_every_spot(counts, measured, seed):
    before = counts.copy()
    after, genes = Augmentation(thin=1.0)(counts, measured, np.random.default_rng(seed))
    left = after.sum(axis=1).A1 / counts.sum(axis=1).A1
    assert LEAST_DEPTH * 0.9 < left.mean() <= 1
    assert left.std() < 0.02
    assert (after.data > 0).all()
    assert (counts - after).min() >= 0
    assert np.array_equal(after.data, after.data.round())
    assert genes is measured
    assert (before != counts).nnz == 0  # what is read from is not changed


@pytest.mark.parametrize("seed", range(8))
def test_genes_outside_of_a_panel_are_not_measured(counts, measured, seed):
    before = counts.copy()
    after, genes = Augmentation(panel=1.0)(counts, measured, np.random.default_rng(seed))
    assert LEAST_GENES <= genes.sum() <= measured.sum()
    assert not (genes & ~measured).any()
    expected = counts.toarray() * genes
    np.testing.assert_array_equal(after.toarray(), expected)
    assert (before != counts).nnz == 0


def test_panels_have_rather_the_genes_with_many_counts(counts, measured):
    rng, total = np.random.default_rng(0), counts.sum(axis=0).A1
    draws = [Augmentation(panel=1.0)(counts, measured, rng)[1] for _ in range(60)]
    common = np.argsort(-total[:800])
    kept = np.mean(draws, axis=0)
    assert kept[common[:200]].mean() > kept[common[-200:]].mean() + 0.1


def test_a_small_panel_stays_as_it_is(counts):
    few = np.arange(N_GENES) < LEAST_GENES
    assert Augmentation(panel=1.0)(counts, few, np.random.default_rng(0))[1] is few
