"""The published task: the same loss and gradients as the oracle on the same batch and mask."""

import numpy as np
import pytest
import torch

from reference import published
from sagefm.model import Config, SageFM
from sagefm.nn import draw_masks
from sagefm.pp.read import read
from sagefm.pp.sections import sections_of
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.plan import BatchPlan, tiles_of
from sagefm.pretrain.published import gather

TOLERANCE = 1e-5
PATCHES = {"a": [slice(0, 16), slice(100, 105)], "b": [slice(37, 53)]}
"""Spots along the curve of each slide: a batch of 37."""


@pytest.fixture(scope="module")
def slides(slide):
    return {"a": slide, "b": simulate(150, seed=8, patient="p2", slide="b")}


def source_of(slides, vocabulary):
    return Memory(sections_of(slides), vocabulary, 15)


def batch_of(source, patches=PATCHES, fraction=0.3, seed=9):
    parts = []
    for name, own in patches.items():
        for spots in own:
            region = source.read(name, spots.start, spots.stop)
            parts.append((region, np.arange(spots.stop - spots.start)))
    n_centers = sum(len(spots) for _, spots in parts)
    chance = np.random.default_rng(seed)
    masks = draw_masks(n_centers, len(source.vocabulary), fraction, chance)
    return gather(parts, masks, masks.n_masked())


def oracle_of(network, slides, model, batch, patches=PATCHES):
    """Loss of the published network on one dense subgraph per center, from the slides alone."""
    oracle = published.of_ours(network.state_dict(), network.widths)
    hidden = iter(batch.masks.dense().numpy())
    graphs, truth, masks = [], [], []
    for piece in sections_of(slides):
        expression = model.prepare(piece.slide).log1p
        neighbors = published.nearest_spots(piece.slide.obsm["spatial"])
        for spots in patches.get(piece.name, []):
            centers = piece.rows[spots]
            own = np.array([next(hidden) for _ in centers])
            # The oracle takes the rows of `hidden` in the order of the centers it is given.
            graphs += published.subgraphs(expression, neighbors[centers], own)
            truth.append(expression[centers].toarray())
            masks.append(own)
    [whole] = published.batches(graphs, size=10_000)
    predicted = oracle(whole.x, whole.edge_index)[:: neighbors.shape[1]]
    truth, masks = torch.from_numpy(np.concatenate(truth)), torch.from_numpy(np.concatenate(masks))
    return oracle, ((predicted - truth)[masks] ** 2).mean()


def gradients(network, oracle):
    """Ours beside theirs, for every weight of the network."""
    theirs = {"first": oracle.conv1.lin.weight.grad.T, "first_bias": oracle.conv1.bias.grad}
    for layer in range(4):
        convolution = getattr(oracle, f"conv{layer + 2}")
        theirs[f"encoder.{layer}.weight"] = convolution.lin.weight.grad
        theirs[f"encoder.{layer}.bias"] = convolution.bias.grad
    theirs |= {
        "decoder.weight": oracle.fc_gene.weight.grad,
        "decoder.bias": oracle.fc_gene.bias.grad,
    }
    ours = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert ours.keys() == theirs.keys()
    return [(name, ours[name], theirs[name]) for name in ours]


def require_the_oracles(model, slides, batch, patches=PATCHES):
    network = model.network
    network.zero_grad()
    loss = batch.error(network, 1.0)
    loss.backward()
    oracle, expected = oracle_of(network, slides, model, batch, patches)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=TOLERANCE)
    assert loss.item() > 0.01
    for name, ours, theirs in gradients(network, oracle):
        assert float(theirs.abs().max()) > 1e-6, name
        assert float((ours - theirs).abs().max()) <= TOLERANCE, name


@pytest.mark.parametrize("order", ["dense", "sparse"])
def test_loss_and_gradients_are_those_of_the_oracle(model, slides, order, monkeypatch):
    """Patches of two slides at once, in either order of the first product."""
    monkeypatch.setattr(
        "sagefm.nn.published.network._DENSE_PACE", {"dense": np.inf, "sparse": 0}[order]
    )
    batch = batch_of(source_of(slides, model.vocabulary))
    assert len(batch.operators) == 3
    require_the_oracles(model, slides, batch)


@pytest.mark.parametrize("fraction", [0.05, 0.9])
def test_so_they_are_with_few_and_with_many_genes_hidden(model, slides, fraction):
    require_the_oracles(
        model, slides, batch_of(source_of(slides, model.vocabulary), fraction=fraction)
    )


@pytest.mark.slow
def test_so_they_are_on_real_slides(shared):
    slides = {name: read(shared / "slides" / f"{name}.h5ad") for name in ("her2st_A1", "her2st_B1")}
    symbols = Vocabulary.read(shared / "sagefm_published_genes.txt").symbols[:3000]
    model = SageFM.new(Vocabulary(symbols), Config(widths=(64, 32, 32, 32, 48)), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    patches = {name: [slice(10, 26), slice(200, 216)] for name in slides}
    require_the_oracles(
        model, slides, batch_of(source_of(slides, model.vocabulary), patches), patches
    )


def test_a_batch_knows_the_loss_of_its_share(model, slides):
    """The shares of two processes add up, each told how much is hidden in all."""
    source = source_of(slides, model.vocabulary)
    whole = batch_of(source)
    halves = []
    for centers, patches in ((slice(0, 16), [0]), (slice(16, 37), [1, 2])):
        parts = [
            (source.read(name, spots.start, spots.stop), np.arange(spots.stop - spots.start))
            for i, (name, spots) in enumerate((n, s) for n, own in PATCHES.items() for s in own)
            if i in patches
        ]
        halves.append(gather(parts, whole.masks.of(centers), whole.n_masked))
    with torch.no_grad():
        losses = [float(batch.error(model.network, 1.0)) for batch in (whole, *halves)]
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-6)


def test_only_hidden_entries_count(model, slides):
    batch = batch_of(source_of(slides, model.vocabulary))
    shown = ~batch.masks.in_order()
    other = batch._replace(truth=torch.where(shown, batch.truth + 5, batch.truth))
    with torch.no_grad():
        errors = [each.error(model.network, 1.0) for each in (batch, other)]
        assert torch.equal(*errors)


def test_what_is_hidden_is_not_seen(model, slides):
    """A hidden count of a center changes nothing; that of one of its neighbors does."""
    source = source_of({"a": slides["a"]}, model.vocabulary)
    batch = batch_of(source, {"a": [slice(50, 51)]})
    gene = int(batch.masks.dense()[0].nonzero()[0])
    with torch.no_grad():
        before = model.network.mix(batch.rows, batch.operators)
        row_of = [source.read("a", 50, 51).neighbors[0, i] for i in (0, 1)]
        for row, seen in zip(row_of, (False, True), strict=True):
            changed = source_of({"a": slides["a"]}, model.vocabulary)
            expression = changed.read("a", 50, 51).log1p
            dense = expression.tolil()
            dense[row, gene] += 3
            new = dense.tocsr()
            expression.data, expression.indices, expression.indptr = (
                new.data,
                new.indices,
                new.indptr,
            )
            after = batch_of(changed, {"a": [slice(50, 51)]})
            moved = float((model.network.mix(after.rows, after.operators) - before).abs().max())
            assert (moved > 1e-3) == seen


def test_slides_do_not_see_each_other(slides, model):
    """The batch of a slide is the same beside another slide."""
    alone = source_of({"b": slides["b"]}, model.vocabulary).read("b", 0, 150)
    beside = source_of(slides, model.vocabulary).read("b", 0, 150)
    np.testing.assert_array_equal(alone.neighbors, beside.neighbors)
    assert (alone.log1p != beside.log1p).nnz == 0
    assert beside.log1p.shape[0] == 150


def test_the_spots_of_a_source_are_ordered_along_the_curve(slides, model):
    """Rows and their neighbors are those of the slide, in another order."""
    source = source_of(slides, model.vocabulary)
    for piece in sections_of(slides):
        prepared = model.prepare(piece.slide)
        region = source.read(piece.name, 20, 60)
        np.testing.assert_array_equal(region.neighbors[:, 0], np.arange(20, 60))
        rows = piece.rows[20:60]
        np.testing.assert_array_equal(piece.rows[region.neighbors], prepared.neighbors[rows])
        assert (region.log1p[20:60] != prepared.log1p[rows]).nnz == 0


def test_patches_share_most_of_their_neighbors(slides, model):
    """Why batches are made of patches: a center costs far less than 15 spots."""
    source = source_of(slides, model.vocabulary)
    plan = BatchPlan(tiles_of("a", np.arange(200), 200), 64, 16, {})
    patches = [patch for batch in plan.shuffled(0, 0) for patch in batch]
    rows = sum(len(np.unique(source.read(*p.tile).neighbors[p.spots])) for p in patches)
    assert rows < 5 * 200


def test_an_untrained_network_starts_from_the_mean_of_each_gene(slide):
    vocabulary = Vocabulary(tuple(slide.var_names[:300]))
    model = SageFM.new(vocabulary, Config(widths=(24, 16, 16, 16, 20)))
    expression = model.prepare(slide).log1p
    mean = torch.from_numpy(expression.mean(axis=0).A1).float()
    model.network.start_from(mean)
    predicted = model.predict(slide).mean(axis=0)
    assert np.corrcoef(predicted, mean)[0, 1] > 0.9
