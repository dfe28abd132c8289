"""Masks: so many genes of every center, each gene as often as any other."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sagefm.nn import draw_masks

steady = settings(derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
FRACTIONS = st.floats(0.01, 0.99)


def drawn(n_centers=6, n_genes=100, fraction=0.3, seed=0):
    return draw_masks(n_centers, n_genes, fraction, np.random.default_rng(seed))


@steady
@given(st.integers(0, 20), st.integers(1, 300), FRACTIONS, SEEDS)
def test_every_center_hides_as_many_blocks_and_the_blocks_are_all_genes(
    n_centers, n_genes, fraction, seed
):
    masks = drawn(n_centers, n_genes, fraction, seed)
    assert sorted(masks.order.tolist()) == list(range(n_genes))
    ends = masks.ends.tolist()
    assert (ends[0], ends[-1]) == (0, n_genes)
    sizes = np.diff(ends)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    assert masks.masked.shape == (n_centers, len(sizes))
    assert len(set(masks.masked.sum(dim=1).tolist())) <= 1
    assert (masks.masked.sum(dim=1) >= 1).all()


@steady
@given(st.integers(200, 500), st.floats(0.025, 0.99), SEEDS)
def test_the_share_is_met_to_within_1_in_40(n_genes, fraction, seed):
    masks = drawn(4, n_genes, fraction, seed)
    n_blocks = masks.masked.shape[1]
    assert abs(masks.masked[0].sum().item() / n_blocks - fraction) <= 1 / 40 + 1e-9
    shares = masks.dense().float().mean(dim=1)
    assert (shares - fraction).abs().max() <= 1 / 40 + n_blocks / 2 / n_genes


@pytest.mark.parametrize("n_genes", [20, 100, 14_560])
def test_the_published_share_is_exact(n_genes):
    dense = drawn(5, n_genes, 0.3).dense()
    assert dense.sum(dim=1).tolist() == [round(0.3 * n_genes)] * 5


@steady
@given(st.integers(1, 20), st.integers(1, 300), FRACTIONS, SEEDS)
def test_all_ways_to_spell_masks_agree(n_centers, n_genes, fraction, seed):
    masks = drawn(n_centers, n_genes, fraction, seed)
    hidden, dense = masks.in_order(), masks.dense()
    assert dense.dtype == torch.bool
    assert dense.shape == (n_centers, n_genes)
    assert torch.equal(dense[:, masks.order], hidden)
    assert int(dense.sum()) == masks.n_masked()
    half = slice(n_centers // 2, n_centers)
    assert torch.equal(masks.of(half).dense(), dense[half])


def test_every_gene_is_hidden_equally_often_and_without_regard_to_its_neighbors():
    """Over many batches of one center: each gene at the rate, each pair at the rate of a draw."""
    n_genes, n_draws = 40, 2000
    rng = np.random.default_rng(1)
    dense = np.stack([draw_masks(1, n_genes, 0.3, rng).dense()[0] for _ in range(n_draws)])
    shares = dense.mean(axis=0)
    assert abs(shares - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / n_draws)
    both = dense.T.astype(float) @ dense / n_draws
    pairs = both[np.triu_indices(n_genes, 1)]
    rate = 0.3 * 11 / 39  # of 12 hidden ones of 40
    assert abs(pairs - rate).max() < 5.5 * np.sqrt(rate * (1 - rate) / n_draws)


def test_centers_of_one_batch_differ():
    dense = drawn(64, 300).dense().numpy()
    assert len(np.unique(dense, axis=0)) >= 60  # of 38,760 choices of 6 blocks among 20
    shares = drawn(4000, 50).dense().float().mean(dim=0)
    # 4000 draws with p = 0.3: standard deviation 0.0072
    assert (shares - 0.3).abs().max() < 5 * 0.0073


@steady
@given(SEEDS)
def test_masks_depend_on_the_source_of_chance_alone(seed):
    one, same, other = drawn(seed=seed), drawn(seed=seed), drawn(seed=seed + 1)
    assert torch.equal(one.dense(), same.dense())
    assert torch.equal(one.order, same.order)
    assume(not torch.equal(one.order, other.order))
    assert not torch.equal(one.dense(), other.dense())
