"""Batches as threads gather them: the same whoever does it, and no more in memory than needed."""

import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from sagefm import InputError
from sagefm.nn import draw_masks
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.batches import Batches
from sagefm.pretrain.plan import BatchPlan, part_of_process, tiles_of
from sagefm.pretrain.published import PublishedTask, gather

N_GENES, N_SPOTS, SLIDES = 50, 70, ("s0", "s1", "s2", "s3")


class Slides:
    """A source that notes what is read, and what of it is still alive."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.vocabulary = Vocabulary(tuple(f"G{i}" for i in range(N_GENES)))
        self.n_neighbors = 15
        self.table = pd.DataFrame({"spots": N_SPOTS}, index=list(SLIDES))
        self.whole = {name: a_region(rng) for name in SLIDES}
        self.reads = Counter()
        self.alive = {}
        self.broken = set()

    def read(self, slide, start, stop):
        self.reads[slide, start, stop] += 1
        if slide in self.broken:
            raise InputError(f"{slide}: is gone")
        whole = self.whole[slide]
        region = AlignedSlide.of_counts(
            whole.counts.copy(), whole.neighbors[start:stop], whole.measured
        )
        self.alive[slide, start, stop] = weakref.ref(region)
        return region

    def living(self):
        return {tile for tile, region in self.alive.items() if region() is not None}


def a_region(rng):
    """Spots in a row, each with those around it."""
    x = csr_matrix(random_array((N_SPOTS, N_GENES), density=0.4, rng=rng), dtype=np.float32)
    distance = np.abs(np.arange(N_SPOTS)[:, None] - np.arange(N_SPOTS))
    measured = np.ones(N_GENES, dtype=bool)
    neighbors = np.argsort(distance, axis=1, kind="stable")[:, :15]
    return AlignedSlide.of_counts(x, neighbors, measured)


@pytest.fixture
def source():
    return Slides()


@pytest.fixture
def plan(monkeypatch):
    """Four slides in twelve tiles, of which three are alive at a time."""
    monkeypatch.setattr("sagefm.pretrain.plan.TILE", 25)
    tiles = {}
    for name in SLIDES:
        tiles |= tiles_of(name, np.arange(N_SPOTS), N_SPOTS)
    return BatchPlan(tiles, 20, 5, {}, window=3).shuffled(0, 0)


def batches(source, plan, **more):
    return Batches(source, plan, (0, 1, 2), PublishedTask(0.3), **more)


def numbers(batch):
    """All tensors and numbers of a batch, in a row."""
    flat = [*batch.rows, *batch.operators, batch.truth, *batch.masks]
    return [*flat, torch.tensor([batch.n_masked, batch.n_own, batch.number])]


def require_same(ones, others):
    ones, others = list(ones), list(others)
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        for a, b in zip(numbers(one), numbers(other), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def shown(batch):
    """What the first layer sees of every center: centers × genes."""
    dense = batch.rows.dense(N_GENES).split([a.shape[1] for a in batch.operators])
    return torch.cat([a @ x for a, x in zip(batch.operators, dense, strict=True)])


def test_a_batch_is_the_mean_without_what_is_hidden_and_the_truth(source):
    spots = {"s0": np.arange(10, 22), "s2": np.array([69, 0, 33])}
    masks = draw_masks(15, N_GENES, 0.3, np.random.default_rng(5))
    batch = gather([(source.whole[name], own) for name, own in spots.items()], masks, 77, 4)
    truth, mean = [], []
    for name, own in spots.items():
        x = source.whole[name].log1p.toarray()
        truth.append(x[own])
        mean.append(x[source.whole[name].neighbors[own]].mean(axis=1))
    truth, mean = np.concatenate(truth), np.concatenate(mean)
    expected = mean - np.where(masks.dense(), truth, 0) / 15
    np.testing.assert_allclose(shown(batch), expected, atol=1e-6)
    np.testing.assert_array_equal(batch.truth, truth[:, masks.order])
    assert (batch.n_masked, batch.number, len(batch.operators)) == (77, 4, 2)
    # Spots that several centers see are there once.
    assert batch.operators[0].shape == (12, 12 + 14 + 12)


def test_every_batch_is_that_of_the_plan(source, plan):
    for number, batch in enumerate(batches(source, plan)):
        rows = [
            source.whole[p.tile.slide].log1p[p.tile.start + p.spots].toarray() for p in plan[number]
        ]
        np.testing.assert_array_equal(batch.truth, np.concatenate(rows)[:, batch.masks.order])
        assert batch.number == number
        assert batch.n_masked == batch.masks.n_masked() == int(batch.masks.dense().sum())
    assert number == len(plan) - 1 == len(batches(source, plan)) - 1


@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_no_bit(source, plan, workers):
    require_same(batches(source, plan), batches(source, plan, workers=workers))


@pytest.mark.parametrize("first", [1, 7, 13])
def test_beginning_later_gives_the_same_tail(source, plan, first):
    tail = batches(source, plan, first=first, workers=2)
    assert len(tail) == len(plan) - first
    require_same(tail, list(batches(source, plan))[first:])


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_several_processes_make_up_the_batch(source, plan, world):
    shares = [list(batches(source, plan, rank=r, world=world)) for r in range(world)]
    for whole, *parts in zip(batches(source, plan), *shares, strict=True):
        assert {part.n_masked for part in parts} == {whole.n_masked}
        assert [part.masks.n_masked() for part in parts] == [part.n_own for part in parts]
        assert sum(part.n_own for part in parts) == whole.n_own == whole.n_masked
        assert torch.equal(torch.cat([part.masks.dense() for part in parts]), whole.masks.dense())
        assert torch.equal(torch.cat([part.truth for part in parts]), whole.truth)
        torch.testing.assert_close(torch.cat([shown(part) for part in parts]), shown(whole))


def test_masks_differ_between_batches_epochs_and_stages(source, plan):
    spelled = [batch.masks.dense().numpy().tobytes() for batch in batches(source, plan)]
    for seed in ((0, 1, 3), (0, 2), (1, 1, 2)):
        other = Batches(source, plan, seed, PublishedTask(0.3))
        spelled += [batch.masks.dense().numpy().tobytes() for batch in other]
    assert len(set(spelled)) == 4 * len(plan)


@pytest.mark.parametrize("workers", [1, 3])
def test_regions_are_read_once_and_let_go(source, plan, workers):
    plan = [[patch] for batch in plan for patch in batch]  # many small batches
    first, last = {}, {}
    for number, [patch] in enumerate(plan):
        first.setdefault(patch.tile, number)
        last[patch.tile] = number
    ahead = workers + 2
    at_once = 0
    for number, _ in enumerate(batches(source, plan, workers=workers)):
        alive = source.living()
        # A thread may let go of what it has used a few batches later.
        assert alive <= {s for s in first if first[s] < number + ahead <= last[s] + 4 * ahead}
        at_once = max(at_once, len(alive))
    assert at_once < len(first)
    assert not source.living()
    assert set(source.reads) == set(first)
    assert set(source.reads.values()) == {1}


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("sagefm-batches")]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_slide_that_vanishes_is_told_where_it_is_needed(source, plan, workers):
    source.broken.add("s2")
    needing = [any(patch.tile.slide == "s2" for patch in batch) for batch in plan]
    plan = [batch for batch, needs in zip(plan, needing, strict=True) if not needs][:3] + plan
    got = []
    with pytest.raises(InputError, match="s2: is gone"):
        for batch in batches(source, plan, workers=workers):
            got.append(batch.number)
    assert got == list(range(3 + needing.index(True)))
    assert not threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_leaving_early_leaves_no_thread_and_no_region(source, plan, workers):
    row = iter(batches(source, plan, workers=workers))
    next(row)
    assert threads()
    row.close()
    assert not threads()
    assert not source.living()


def test_leaving_while_a_slide_is_being_read(source, plan, monkeypatch):
    """A thread at work ends its piece; what waits is never begun."""
    at_work, goes_on = threading.Event(), threading.Event()
    read, shutdown = source.read, ThreadPoolExecutor.shutdown

    def slow(*tile):
        if len(source.reads) == 6:
            at_work.set()
            assert goes_on.wait(10)
        return read(*tile)

    def leave(pool, *arguments, **named):
        shutdown(pool, *arguments, **named)
        goes_on.set()

    source.read = slow
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", leave)
    met = [len({p.tile for batch in plan[: n + 1] for p in batch}) for n in range(len(plan))]
    needing = next(number for number, n in enumerate(met) if n >= 7)
    row = iter(batches(source, plan))
    for _ in range(needing - 1):
        next(row)
    assert at_work.wait(10)
    row.close()
    assert not threads()
    assert len(source.reads) == 7


def test_a_share_of_a_batch_keeps_its_masks(source, plan):
    """What one of two processes is shown is what its spots are shown in one process."""
    rows, _ = part_of_process(plan[3], 1, 2)
    whole = list(batches(source, plan))[3]
    share = list(batches(source, plan, rank=1, world=2))[3]
    assert torch.equal(share.masks.dense(), whole.masks.dense()[rows])
