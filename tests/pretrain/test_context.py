"""The task of the context network: batches of one region each."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm.model import Config, SageFM
from sagefm.nn import draw_masks
from sagefm.nn.context.loss import tile_error
from sagefm.pp.sections import sections_of
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain import Recipe
from sagefm.pretrain.batches import Batches
from sagefm.pretrain.context import MISSING, ContextTask
from sagefm.pretrain.corpus import Corpus, build
from sagefm.pretrain.data import of_corpus, of_memory
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.plan import CONTEXT_TILE, TileBatchPlan, tiles_of
from sagefm.pretrain.reference_losses import reference_losses
from sagefm.pretrain.source import Selected

steady = settings(derandomize=True, deadline=None)
SIZES = st.lists(st.integers(1, 2500), min_size=1, max_size=6)
N_GENES = 60
CONFIG = Config("context", (16, 24, 24, 12))


def a_plan(sizes, batch_size=128, **more):
    tiles = {}
    for i, size in enumerate(sizes):
        tiles |= tiles_of(f"s{i}", np.arange(size), size, TileBatchPlan.most)
    return TileBatchPlan(tiles, batch_size, 16, more.pop("weights", {}), **more)


def seen(batches):
    return Counter(
        (p.tile.slide, p.tile.start + spot)
        for batch in batches
        for p in batch
        for spot in p.spots.tolist()
    )


@pytest.fixture(scope="module")
def slides():
    """The second measures but half of the genes."""
    genes = simulate(15).var_names[:N_GENES]
    each = [
        simulate(90 + 30 * i, genes=genes, seed=i, patient=f"p{i}", slide=f"s{i}") for i in range(2)
    ]
    return {"s0": each[0], "s1": each[1][:, 10:40].copy()}


@pytest.fixture(scope="module")
def source(slides):
    return Memory(sections_of(slides), Vocabulary(tuple(slides["s0"].var_names)), 15)


@pytest.fixture(scope="module")
def network(source):
    network = SageFM.new(source.vocabulary, CONFIG, seed=3).network
    torch.manual_seed(4)
    for parameter in network.parameters():  # everything has a say
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def a_batch(source, slide="s1", spots=(3, 50, 7, 90, 11), share=slice(None), task=None, seed=0):
    task = task or ContextTask(0.3, 1.0)
    region = source.read(slide, 0, int(source.table.loc[slide, "spots"]))
    own, chance = np.array(spots, dtype=np.int64), np.random.default_rng(seed)
    return task.batch([(region, own[share])], share, [own], 5, chance)


@steady
@given(SIZES, st.integers(16, 300), st.integers(0, 99), st.integers(1, 20))
def test_every_spot_comes_once_in_batches_of_one_region(sizes, batch_size, seed, window):
    plan = a_plan(sizes, batch_size, window=window)
    everyone = Counter((f"s{i}", spot) for i, size in enumerate(sizes) for spot in range(size))
    for batches in (plan.shuffled(seed, 1), plan.in_order()):
        assert seen(batches) == everyone
        assert all(len(batch) == 1 for batch in batches)
        assert max(len(batch[0].spots) for batch in batches) <= 1.5 * batch_size + 1
    assert plan.n_spots == sum(sizes)


def test_centers_are_drawn_from_all_of_a_region_and_regions_are_mixed():
    plan = a_plan([600] * 8, window=8)
    first, again, other = (
        [(batch[0].tile, batch[0].spots.tolist()) for batch in plan.shuffled(0, epoch)]
        for epoch in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert all(max(spots) - min(spots) > 400 for _, spots in first)
    slides = [tile.slide for tile, _ in first]
    assert slides != sorted(slides)
    assert sum(a != b for a, b in pairwise(slides)) > 20  # of 39


def test_weights_repeat_and_leave_out():
    plan = a_plan([600, 500], weights={"s0": 2.0, "s1": 0.5}, window=2)
    total = Counter()
    for epoch in range(40):
        counts = seen(plan.shuffled(0, epoch))
        assert all(counts["s0", spot] == 2 for spot in range(600))
        total.update(slide for slide, _ in counts.elements())
    assert total["s1"] / (40 * 500) == pytest.approx(0.5, abs=0.1)


def test_a_large_slide_is_cut_to_regions_with_their_halo():
    slide = simulate(1500, genes=simulate(15).var_names[:N_GENES], seed=0, slide="large")
    recipe = Recipe.load("context", [f"data.genes={N_GENES}", "data.validation=0.2"])
    found = of_memory({"large": slide}, sections_of({"large": slide}), recipe)
    plan = found.plan(found.training, recipe)
    sizes = [tile.stop - tile.start for tile in plan.tiles]
    assert sum(sizes) == 1500
    assert max(sizes) <= CONTEXT_TILE
    batches = list(Batches(found.source, plan.in_order(), (0,), ContextTask(0.3)))
    assert sum(len(batch.neighbors) for batch in batches) == 1200
    whole = found.source.read("large", 0, 1500)
    for [patch], batch in zip(plan.in_order(), batches, strict=True):
        n_rows = len(batch.rows.ends) - 1
        own = patch.tile.stop - patch.tile.start
        assert own < n_rows < own + 4 * np.sqrt(own) * 4  # a halo of two spots or so
        at = patch.tile.start + patch.spots
        expected = whole.log1p[whole.neighbors[at].ravel()].toarray()
        dense = batch.rows.dense(N_GENES)
        np.testing.assert_array_equal(dense[batch.neighbors.flatten()], expected)


def test_a_corpus_gives_the_batches_of_its_slides(slides, source, tmp_path):
    for name, slide in slides.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    build({name: tmp_path / f"{name}.h5ad" for name in slides}, tmp_path / "corpus")
    stored = Selected.of(Corpus.open(tmp_path / "corpus"), source.vocabulary)
    assert stored.vocabulary.symbols != stored.source.vocabulary.symbols
    for name in slides:
        ours, theirs = (a_batch(each, name, (3, 50, 7)) for each in (stored, source))
        assert ours.measured.tolist() == theirs.measured.tolist()
        assert torch.equal(ours.neighbors, theirs.neighbors)
        assert torch.equal(ours.rows.dense(N_GENES), theirs.rows.dense(N_GENES))
        assert (ours.n_masked, ours.n_missing) == (theirs.n_masked, theirs.n_missing)


def spelled(batch):
    """What is hidden and what is missing of what is measured: centers × genes, genes."""
    gone = torch.repeat_interleave(batch.missing, torch.diff(batch.masks.ends))
    missing = torch.empty_like(gone).index_copy_(0, batch.masks.order, gone)
    return batch.masks.dense() & batch.measured, missing & batch.measured


def test_the_loss_is_the_mean_of_what_is_hidden_and_a_tenth_of_what_is_missing(source, network):
    batch = a_batch(source)
    hidden, missing = spelled(batch)
    assert not (hidden & missing).any()
    assert batch.n_masked == batch.n_own == int(hidden.sum()) > 0
    assert batch.n_missing == len(hidden) * int(missing.sum()) > 0
    parts = batch[:6]
    with torch.no_grad():
        of_hidden = tile_error(network, *parts, (1 / batch.n_masked, 0.0), batch.others)
        of_missing = tile_error(network, *parts, (0.0, 1 / batch.n_missing), batch.others)
        loss = batch.error(network, 1.0)
        assert float(of_missing) > 0
        assert float(loss) == pytest.approx(float(of_hidden + MISSING * of_missing), rel=1e-5)
        assert float(batch.error(network, 3.0)) == pytest.approx(3 * float(loss), rel=1e-5)


def test_unmeasured_genes_are_never_scored(slides, source, network):
    batch = a_batch(source)
    assert batch.measured.tolist() == [10 <= i < 40 for i in range(N_GENES)]
    assert (batch.scored() == (batch.masks.in_order() & batch.measured[batch.masks.order])).all()
    network.zero_grad()
    batch.error(network, 1.0).backward()
    for weights in (network.decoder, network.missing):  # nothing is asked of the others
        asked = weights.grad.abs().sum(dim=1) > 0
        assert asked.any()
        assert not (asked & ~batch.measured).any()
    mean = torch.full((N_GENES,), 0.5)
    odd = torch.where(batch.measured, mean, 1e3)
    assert reference_losses(mean, [batch], 15) == reference_losses(odd, [batch], 15)


def test_references_are_those_computed_the_slow_way(slides, source):
    batch = a_batch(source, task=ContextTask(0.3))
    hidden = spelled(batch)[0].numpy()
    whole = source.read("s1", 0, 120)
    x, spots = whole.log1p.toarray(), [3, 50, 7, 90, 11]
    truth, around = x[spots], x[whole.neighbors[spots, 1:]].mean(axis=1)
    mean = np.linspace(0, 1, N_GENES, dtype=np.float32)
    found = reference_losses(torch.from_numpy(mean), [batch], 15)
    for name, guess in (("gene_mean", mean), ("neighbor_mean", around)):
        expected = ((guess - truth)[hidden] ** 2).mean()
        assert found[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("world", [2, 7])
def test_the_shares_of_several_processes_make_up_the_batch(source, network, world):
    """Also where there are more processes than centers: some have none, and ask nothing."""
    with torch.no_grad():
        whole = a_batch(source)
        cuts = [i * 5 // world for i in range(world + 1)]
        shares = [a_batch(source, share=slice(a, b)) for a, b in pairwise(cuts)]
        assert min(len(part.neighbors) for part in shares) == (0 if world > 5 else 2)
        assert {(s.n_masked, s.n_missing) for s in shares} == {(whole.n_masked, whole.n_missing)}
        assert sum(part.n_own for part in shares) == whole.n_own
        errors = [float(part.error(network, 1.0)) for part in shares]
        assert sum(errors) == pytest.approx(float(whole.error(network, 1.0)), rel=1e-5)


def test_chance_depends_on_the_seed_and_the_number_of_the_batch_alone(slides):
    recipe = Recipe.load("context", [f"data.genes={N_GENES}", 'data.validation=["p0"]'])
    found = of_memory(slides, sections_of(slides), recipe)
    plan = a_plan([90], 20).in_order() + a_plan([90], 20).in_order()
    task = ContextTask(0.3, 0.5)

    def drawn(seed=(0, 1), **more):
        batches = Batches(found.source, plan, seed, task, **more)
        return [(b.number, b.masks.order.tolist(), b.missing.tolist()) for b in batches]

    whole = drawn()
    assert len({str(each[1:]) for each in whole}) == len(whole) > 6
    assert drawn(workers=3) == whole
    assert drawn(rank=1, world=2) == whole
    assert drawn(first=4) == whole[4:]
    assert drawn(seed=(0, 2)) != whole


def test_how_much_is_missing(source):
    chance = np.random.default_rng(0)
    tasks = {fraction: ContextTask(0.3, fraction) for fraction in (0.0, 0.3, 1.0)}
    shares = {
        fraction: np.array([task._missing(20, chance).mean() for _ in range(500)])
        for fraction, task in tasks.items()
    }
    assert not shares[0.0].any()
    assert (shares[0.3] > 0).mean() == pytest.approx(0.3, abs=0.07)
    assert Counter(shares[1.0].tolist()).keys() == {0.1, 0.3, 0.7}
    assert {int(tasks[1.0]._missing(4, chance).sum()) for _ in range(50)} == {0, 1}
    settings_ = Recipe.load("context").train
    assert ContextTask.of(settings_, learning=True).missing_fraction == 0.3
    assert ContextTask.of(settings_, learning=False).missing_fraction == 0.0


def test_masks_hide_what_the_recipe_says(source):
    batch = a_batch(source, task=ContextTask(0.3))
    expected = draw_masks(5, N_GENES, 0.3, np.random.default_rng(0))
    assert torch.equal(batch.masks.dense(), expected.dense())
    assert not batch.missing.any()
    assert batch.n_missing == 0


def test_a_corpus_of_other_genes_knows_what_is_measured(slides, tmp_path):
    """A vocabulary of few genes, of which a slide lacks some."""
    for name, slide in slides.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    build({name: tmp_path / f"{name}.h5ad" for name in slides}, tmp_path / "corpus")
    wanted = slides["s0"].var_names[[50, 12, 3, 20]].tolist()
    (tmp_path / "genes.txt").write_text("\n".join(wanted))
    recipe = Recipe.load("context", [f"data.genes={tmp_path / 'genes.txt'}"])
    found = of_corpus(Corpus.open(tmp_path / "corpus"), recipe).source
    assert found.read("s0", 0, 20).measured.all()
    assert found.read("s1", 0, 20).measured.tolist() == [False, True, False, True]
