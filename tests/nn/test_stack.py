"""Stacked views of a masked count: what they may contain, and how they are weighed."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from nn.test_context import N_GENES, dense, network, reading, tissue
from sagefm.nn import draw_masks
from sagefm.nn.context.stack import EDGES, N_VIEWS, Moments, Stack, bins_of

N_SPOTS = 300


def views_of(made, expression, neighbors, masks):
    """All views of all genes, masked or not: views × spots × genes."""
    with torch.inference_mode():
        centers = reading(made, expression, neighbors=neighbors).centers(neighbors, dense(masks))
        genes, whole = torch.arange(N_GENES), slice(0, len(neighbors))
        others = [centers.sharpened(factor).predict_block(genes, whole) for factor in (0.5, 2.0)]
        return torch.cat([centers.views(genes, whole), torch.stack(others)])


def moments(n_entries, truth_of, seed=0):
    """Entries of one bin, whose views are draws and whose truth is a function of these."""
    rng = np.random.default_rng(seed)
    views = torch.from_numpy(rng.gamma(2, 0.5, (N_VIEWS, n_entries)))
    terms = torch.cat([views, torch.ones(1, n_entries, dtype=torch.float64)])
    truth = truth_of(views)
    products = torch.stack([terms @ terms.T] * (len(EDGES) + 1))
    return Moments(products, torch.stack([terms @ truth] * (len(EDGES) + 1)))


def test_no_view_contains_a_masked_count():
    made, (expression, neighbors) = network(), tissue(n_spots=N_SPOTS)
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    before = views_of(made, expression, neighbors, masks)
    changed = expression.toarray()
    changed[7, masks.dense().numpy()[7]] = 3.0
    after = views_of(made, csr_matrix(changed), neighbors, masks)
    assert len(before) == N_VIEWS
    assert torch.equal(after[:, 7], before[:, 7])
    assert all((after[view] - before[view]).abs().max() > 1e-3 for view in range(N_VIEWS))


def test_the_first_view_is_what_the_network_predicts():
    made, (expression, neighbors) = network(), tissue(n_spots=N_SPOTS)
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    with torch.inference_mode():
        centers = reading(made, expression, neighbors=neighbors).centers(neighbors, dense(masks))
        torch.testing.assert_close(
            views_of(made, expression, neighbors, masks)[0], centers.predict()
        )


@pytest.mark.parametrize("view", range(N_VIEWS))
def test_the_view_that_is_right_has_all_the_weight(view):
    stack = Stack.fit([moments(200_000, lambda views: views[view])], torch.zeros(N_GENES).long())
    expected = torch.zeros(N_VIEWS + 1)
    expected[view] = 1
    torch.testing.assert_close(stack.weights[0], expected, atol=0.1, rtol=0)


def test_without_data_the_network_predicts_alone():
    stack = Stack.fit([moments(20, lambda views: views[3])], torch.zeros(N_GENES).long())
    assert stack.weights[0, 0] > 0.9
    assert stack.weights[0, 1:].abs().max() < 0.1


def test_stacked_predictions_weigh_the_views_of_the_bin_of_a_gene():
    made, (expression, neighbors) = network(), tissue(n_spots=N_SPOTS)
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    views = views_of(made, expression, neighbors, masks)
    bins, weights = torch.arange(N_GENES) % 6, torch.randn(6, N_VIEWS + 1).abs()
    with torch.inference_mode():
        encoded = reading(made, expression, neighbors=neighbors)
        encoded.stack = Stack(bins, weights)
        found = encoded.centers(neighbors, dense(masks)).predict()
    by_hand = sum(weights[bins, i] * views[i] for i in range(N_VIEWS)) + weights[bins, -1]
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


def test_bins_are_by_mean_counts():
    mean = torch.tensor([0.0, 0.05, 0.1, 0.5, 1.0, 100.0])
    assert bins_of(mean).tolist() == [0, 1, 2, 3, 4, 5]


def test_moments_are_of_masked_counts_of_the_spots_that_are_asked_for():
    made, (expression, neighbors) = network(), tissue(n_spots=N_SPOTS)
    with torch.inference_mode():
        encoded = reading(made, expression, neighbors=neighbors)
        bins = torch.zeros(N_GENES, dtype=torch.long)
        found = Moments.of(encoded, np.arange(50), bins, np.random.default_rng(0))
    assert int(found.products[0, -1, -1]) == 50 * round(0.3 * N_GENES)
    assert not found.products[1:].any()
