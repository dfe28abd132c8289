"""The context network: its two forms against each other, what it may see, and its derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from arrays import aligned
from sagefm.nn import Context, MaskedGenes, SparseRows, build, draw_masks, encode
from sagefm.nn.context.background import Background, log1p_mean
from sagefm.nn.context.loss import tile_error
from sagefm.nn.context.whole import FOLDS
from sagefm.pp.neighborhood import nearest
from sagefm.stats import poisson as _poisson

N_SPOTS, N_GENES = 90, 60
WIDTHS = (8, 12, 12, 6)


def tissue(seed=0, n_spots=N_SPOTS, depth=200):
    """Log1p counts of spots of two kinds, and their neighborhoods."""
    rng = np.random.default_rng(seed)
    profiles = rng.dirichlet(np.full(N_GENES, 0.5), 2)
    kind = np.arange(n_spots) * 2 // n_spots
    rates = profiles[kind] * rng.gamma(5, depth / 5, n_spots)[:, None]
    places = np.stack([np.arange(n_spots) % 9, np.arange(n_spots) // 9], axis=1)
    points = places + rng.uniform(-0.1, 0.1, (n_spots, 2))
    counts = rng.poisson(rates).astype(np.float32)
    return csr_matrix(np.log1p(counts)), nearest(points, 15)


def network(seed=0):
    """One in which every part counts."""
    torch.manual_seed(seed)
    made = build("context", N_GENES, WIDTHS)
    assert isinstance(made, Context)
    with torch.no_grad():
        made.first.mul_(5)
        made.decoder.mul_(10)
        made.missing.mul_(20)
        made.usual.copy_(torch.rand(N_GENES) * 5)
        for layer in (made.ring_query, made.sharpness, made.level):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return made.eval()


def every(value=True):
    return np.full(N_GENES, value)


def reading(made, expression, measured=None, neighbors=None, rank=None):
    one = np.zeros(expression.shape[0], dtype=np.int64)
    measured = every() if measured is None else measured
    return encode(made, aligned(expression, measured, one, neighbors, rank))


@torch.inference_mode()
def predicted(made, expression, neighbors, hidden=None, measured=None, *, all_of=None, rank=None):
    """Predict some centers; `all_of` the neighborhoods of all spots, where these are not all."""
    encoded = reading(made, expression, measured, neighbors if all_of is None else all_of, rank)
    return encoded.centers(neighbors, hidden).predict().numpy()


def tile(log1p):
    """Log1p counts and counts, as the loss takes them."""
    counts = log1p.copy()
    counts.data = np.expm1(log1p.data)
    return SparseRows.from_scipy(log1p), SparseRows.from_scipy(counts)


def dense(masks):
    return MaskedGenes(np.arange(N_GENES), masks.dense().numpy())


# What is expected of a depth.


@given(depth=st.floats(1, 5000), seed=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_the_table_says_what_poisson_counts_of_a_depth_show(depth, seed):
    rng = np.random.default_rng(seed)
    total = torch.from_numpy(rng.gamma(0.5, 100, N_GENES).astype(np.float32))
    table = Background.of(total, torch.tensor([1.0, 50.0, 2500.0]))
    found = table.weights(torch.tensor([depth])) @ table.expected
    exact = _poisson.log1p_mean(depth * (total / total.sum()).numpy())
    np.testing.assert_allclose(found[0].numpy(), exact, atol=0.01)


def test_residuals_of_draws_from_the_slide_average_to_nothing():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.outer(rng.uniform(50, 500, 2000), np.full(N_GENES, 1 / N_GENES)))
    rows = SparseRows.from_scipy(csr_matrix(np.log1p(counts).astype(np.float32)))
    depths = torch.from_numpy(counts.sum(axis=1).astype(np.float32))
    table = Background.of(torch.from_numpy(counts.sum(axis=0).astype(np.float32)), depths)
    left = table.residuals(rows, depths)
    assert left.mean(dim=0).abs().max() < 0.05 < left.std()


def test_the_mean_of_log1p_counts_has_its_derivative():
    rate = torch.tensor([0.01, 0.4, 3.0, 70.0], dtype=torch.float32, requires_grad=True)
    [by_rate] = torch.autograd.grad(log1p_mean(rate).sum(), rate)
    steps = _poisson.log1p_mean(rate.detach().numpy() * np.array([[1.02], [0.98]]))
    numeric = (steps[0] - steps[1]) / np.log(1.02 / 0.98)
    np.testing.assert_allclose((by_rate * rate).detach().numpy(), numeric, rtol=0.02)


# Training and use are written apart: they must say the same.


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.8])
def test_it_is_used_as_it_is_trained(fraction):
    made, (expression, neighbors) = network(), tissue()
    rng = np.random.default_rng(1)
    rows, measured = np.arange(2, N_SPOTS, FOLDS), rng.random(N_GENES) < 0.9
    expression = csr_matrix(expression.multiply(measured), dtype=np.float32)
    masks = draw_masks(len(rows), N_GENES, fraction, rng)
    guess = predicted(made, expression, neighbors[rows], dense(masks), measured, all_of=neighbors)
    scored = masks.dense().numpy() & measured
    wrong = ((guess - expression[rows].toarray()) ** 2)[scored].sum()
    error = tile_error(
        made, *tile(expression), torch.from_numpy(neighbors[rows]),
        torch.from_numpy(measured), masks, torch.zeros(len(masks.ends) - 1, dtype=torch.bool),
        (1.0, 0.0), torch.arange(N_SPOTS) % FOLDS != 2,
    )  # fmt: skip
    assert wrong > 1
    assert float(error.detach()) == pytest.approx(wrong, rel=1e-4)


def test_genes_that_a_slide_lacks_are_predicted_as_in_training():
    made, (expression, neighbors) = network(), tissue()
    rng = np.random.default_rng(1)
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, rng)
    masks = masks._replace(masked=torch.zeros_like(masks.masked))
    missing = torch.arange(len(masks.ends) - 1) < 4
    gone = missing[masks.block_of()].numpy()
    error = tile_error(
        made, *tile(expression), torch.from_numpy(neighbors),
        torch.from_numpy(every()), masks, missing, (0.0, 1.0),
        torch.ones(N_SPOTS, dtype=torch.bool),
    )  # fmt: skip
    rest = csr_matrix(expression.multiply(~gone), dtype=np.float32)
    guess = predicted(made, rest, neighbors, measured=~gone)
    wrong = ((guess - expression.toarray()) ** 2)[:, gone].sum()
    assert wrong > 1
    assert float(error.detach()) == pytest.approx(wrong, rel=1e-4)


def test_its_loss_reaches_every_weight():
    made, (expression, neighbors) = network(), tissue()
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    missing = torch.arange(len(masks.ends) - 1) == 1
    error = tile_error(
        made, *tile(expression), torch.from_numpy(neighbors),
        torch.from_numpy(every()), masks, missing, (1.0, 1.0),
        torch.ones(N_SPOTS, dtype=torch.bool),
    )  # fmt: skip
    error.backward()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


# What it may see.


@pytest.mark.parametrize("most", [1024, 32])
def test_no_masked_count_of_a_center_reaches_its_prediction(most, monkeypatch):
    monkeypatch.setattr(Context, "MOST", most)
    made, (expression, neighbors) = network(), tissue(n_spots=400)
    masks = draw_masks(400, N_GENES, 0.3, np.random.default_rng(0))
    before = predicted(made, expression, neighbors, dense(masks))
    hidden = masks.dense().numpy()[7]
    changed = expression.toarray()
    changed[7, hidden] = np.log1p(
        np.random.default_rng(3).permutation(10 + np.arange(hidden.sum()))
    )
    after = predicted(made, csr_matrix(changed), neighbors, dense(masks))
    np.testing.assert_array_equal(after[7], before[7])
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("by_spot", [False, True])
def test_no_masked_count_of_a_neighborhood_reaches_its_prediction(by_spot):
    made, (expression, neighbors) = network(), tissue(n_spots=600)
    genes = np.arange(0, N_GENES, 4)
    here = neighbors[[300]]
    changed = expression.toarray()
    shuffled = np.random.default_rng(0).permutation(15)
    changed[np.ix_(here[0], genes)] = changed[np.ix_(here[0][shuffled], genes)] * 0.2
    moved = {}
    for around in (True, False):
        hidden = MaskedGenes(
            genes, np.ones((1, len(genes)), dtype=bool) if by_spot else None, around
        )
        pair = [
            predicted(made, x, here, hidden, all_of=neighbors)
            for x in (expression, csr_matrix(changed))
        ]
        moved[around] = np.abs(pair[1] - pair[0]).max()
    assert moved[True] == 0 < moved[False]


@pytest.mark.parametrize("around", [False, True])
def test_naming_more_genes_than_are_hidden_changes_nothing(around):
    expression, neighbors = tissue()
    measured = every()
    measured[40:] = False
    expression = csr_matrix(expression.toarray() * measured)
    mask = np.zeros((N_SPOTS, N_GENES), dtype=bool)
    mask[::2, 3:9] = True
    few = MaskedGenes(np.arange(3, 9), mask[:, 3:9], around)
    mask[:, 50:] = True  # the slide lacks these
    made = network()
    found, named = (
        predicted(made, expression, neighbors, hidden, measured)
        for hidden in (MaskedGenes(np.arange(N_GENES), mask, around), few)
    )
    np.testing.assert_array_equal(found, named)


def test_hiding_nothing_changes_nothing():
    expression, neighbors = tissue()
    nothing = MaskedGenes(np.arange(N_GENES), np.zeros((N_SPOTS, N_GENES), dtype=bool))
    shown, hidden = (predicted(network(), expression, neighbors, each) for each in (None, nothing))
    np.testing.assert_allclose(hidden, shown, atol=1e-5)


@pytest.mark.parametrize("most", [1024, 32])
def test_the_order_of_spots_does_not_matter(most, monkeypatch):
    monkeypatch.setattr(Context, "MOST", most)
    made, (expression, neighbors) = network(), tissue()
    order = np.random.default_rng(0).permutation(N_SPOTS)
    place = np.argsort(order)
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    hidden = dense(masks), dense(masks._replace(masked=masks.masked[order]))
    one = predicted(made, expression, neighbors, hidden[0])
    other = predicted(made, expression[order], place[neighbors[order]], hidden[1], rank=order)
    np.testing.assert_allclose(other, one[order], atol=1e-4)


@pytest.mark.parametrize("most", [1024, 32])
def test_nobody_stands_for_itself_or_twice(most, monkeypatch):
    """A spot that is a landmark and a neighbor counts once; all weights add up to 1."""
    monkeypatch.setattr(Context, "MOST", most)
    made, (expression, neighbors) = network(), tissue()
    with torch.inference_mode():
        seen = reading(made, expression).centers(neighbors)
    sight, landmarks = seen._attention, seen._slide.landmarks
    assert len(landmarks) == min(most, N_SPOTS)
    both = torch.cat([sight.to_landmarks, sight.to_neighbors], dim=1)
    torch.testing.assert_close(both.sum(dim=1), torch.ones(N_SPOTS))
    inside = (landmarks[None, :, None] == neighbors[:, None, :]).any(axis=2)
    assert not sight.to_landmarks.numpy()[inside].any()
    assert sight.to_neighbors.min() > 0


def test_blocks_of_centers_change_nothing(monkeypatch):
    made, (expression, neighbors) = network(), tissue()
    masks = draw_masks(N_SPOTS, N_GENES, 0.3, np.random.default_rng(0))
    whole = predicted(made, expression, neighbors, dense(masks))
    monkeypatch.setattr("sagefm.nn.context.centers.CENTERS", 13)
    parts = predicted(made, expression, neighbors, dense(masks))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_few_genes_are_predicted_as_among_all():
    made, (expression, neighbors) = network(), tissue()
    wanted = torch.tensor([5, 50, 2])
    with torch.inference_mode():
        seen = reading(made, expression).centers(neighbors, MaskedGenes(np.array([2, 5])))
        some, same = seen.predict(wanted), seen.unchanged(wanted)
        torch.testing.assert_close(some, seen.predict()[:, wanted])
        torch.testing.assert_close(same, some)


# Derivatives.


@pytest.mark.parametrize("where", ["neighbors", "center"])
def test_influence_is_the_slope_of_a_small_change(where):
    made, (expression, neighbors) = network(), tissue()
    genes, wanted = torch.tensor([3, 11]), torch.tensor([0, 20, 33, 59])
    with torch.inference_mode():
        seen = reading(made, expression).centers(neighbors)
        found = made.first[genes] @ seen.influence(wanted)[where].T
        places = slice(1, None) if where == "neighbors" else slice(0, 1)
        felt = torch.from_numpy(seen.weights[:, :, places].sum(axis=2)).float()
        for row, gene in enumerate(genes):
            steps = [
                seen.changed(gene[None], eps * felt[:, :, None], wanted).double()
                for eps in (0.02, -0.02)
            ]
            slope = (steps[0] - steps[1]).mean(dim=0) / 0.04
            assert slope.abs().max() > 1e-4
            torch.testing.assert_close(found[row].double(), slope, atol=2e-4, rtol=0.05)


def test_a_change_nowhere_changes_nothing():
    made, (expression, neighbors) = network(), tissue()
    wanted = torch.tensor([1, 2])
    with torch.inference_mode():
        seen = reading(made, expression).centers(neighbors)
        still = seen.changed(torch.tensor([4]), torch.zeros(4, N_SPOTS, 1), wanted)
        torch.testing.assert_close(still, seen.unchanged(wanted))


# The embedding.


def test_the_parts_of_genes_add_up_to_the_distance_from_the_baseline():
    made, (expression, neighbors) = network(), tissue()
    with torch.inference_mode():
        read_once = reading(made, expression)
        center, around = read_once.explain(neighbors[3], neighbors[40:], 1)
        rows = torch.from_numpy(neighbors[40:].ravel())
        baseline = made.embed(read_once.residuals[rows].mean(dim=0))
        distance = (read_once.embed(neighbors[[3]])[0] - baseline).norm()
    assert center.shape == around.shape == (N_GENES,)
    assert np.abs(center).max() > 0.01
    assert center.sum() + around.sum() == pytest.approx(float(distance), rel=1e-3)


def test_raising_a_gene_everywhere_moves_embeddings_as_said():
    made, (expression, neighbors) = network(), tissue()
    given, step = torch.randn(2, N_SPOTS, 16), 1e-3
    with torch.inference_mode():
        read_once = reading(made, expression)
        by_gene = read_once.pull_back(neighbors, given) @ made.first[4]
        ends = []
        for way in (step, -step):
            moved = reading(made, expression)
            moved.residuals = read_once.residuals + way * made.first[4]
            ends.append((given * moved.embed(neighbors)).sum(dim=(1, 2)))
    torch.testing.assert_close(by_gene, (ends[0] - ends[1]) / (2 * step), atol=0.02, rtol=0.02)


def test_the_embedding_does_not_grow_with_depth():
    """Twice the counts: log1p of them differs everywhere, what kind of tissue it is does not."""
    made, (expression, neighbors) = network(), tissue(depth=2000)
    deep = expression.copy()
    deep.data = np.log1p(2 * np.expm1(expression.data))
    with torch.inference_mode():
        shallow, deeper = (reading(made, x).embed(neighbors) for x in (expression, deep))
    cosine = torch.nn.functional.cosine_similarity(shallow, deeper)
    assert cosine.min() > 0.95


def test_it_starts_from_axes_of_residuals():
    made = build("context", N_GENES, WIDTHS)
    axes = torch.linalg.qr(torch.randn(N_GENES, WIDTHS[0])).Q
    made.start_from(axes, torch.arange(8, 0, -1).float(), torch.ones(N_GENES))
    angles = torch.nn.functional.normalize(made.first.detach(), dim=0)
    torch.testing.assert_close(angles, axes)
    torch.testing.assert_close(made.missing, made.decoder)
    assert made.usual.mean() == 1


def test_single_numbers_learn_faster():
    groups = network().optimizer(1e-3, 0.05).param_groups
    assert [(group["pace"], group["weight_decay"]) for group in groups] == [
        (1.0, 0.05), (1.0, 0.0), (10.0, 0.0),
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len(list(network().parameters()))
