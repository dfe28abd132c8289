"""Which spots the batches of an epoch hold."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm.pretrain.plan import TILE, BatchPlan, part_of_process, tiles_of

steady = settings(derandomize=True, deadline=None)
SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=8)
BATCH_SIZES = st.integers(1, 80)
PATCHES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)


def a_plan(sizes, batch_size=64, patch=16, weights=None, **more):
    """Slides s0, s1, … of so many spots."""
    tiles = {}
    for i, size in enumerate(sizes):
        tiles |= tiles_of(f"s{i}", np.arange(size), size)
    return BatchPlan(tiles, batch_size, patch, weights or {}, **more)


def cut_small(monkeypatch, size=20):
    monkeypatch.setattr("sagefm.pretrain.plan.TILE", size)


def spots_of(batch):
    return [(p.tile.slide, p.tile.start + s) for p in batch for s in p.spots.tolist()]


def sizes_of(batches):
    return [len(spots_of(batch)) for batch in batches]


def everyone(sizes):
    return Counter((f"s{i}", spot) for i, size in enumerate(sizes) for spot in range(size))


def seen(batches):
    return Counter(spot for batch in batches for spot in spots_of(batch))


@steady
@given(SIZES, BATCH_SIZES, PATCHES, SEEDS, st.integers(0, 5), st.integers(1, 20))
def test_every_spot_comes_exactly_once_an_epoch(sizes, batch_size, patch, seed, epoch, window):
    plan = a_plan(sizes, batch_size, patch, window=window)
    assert seen(plan.shuffled(seed, epoch)) == everyone(sizes)
    assert seen(plan.in_order()) == everyone(sizes)
    assert plan.n_spots == sum(sizes)


@steady
@given(SIZES, BATCH_SIZES, PATCHES, SEEDS)
def test_batches_have_their_size_but_for_the_last(sizes, batch_size, patch, seed):
    plan = a_plan(sizes, batch_size, patch)
    for batches in (plan.shuffled(seed, 0), plan.in_order()):
        *full, last = sizes_of(batches)
        assert set(full) <= {batch_size}
        assert last < 1.25 * batch_size
        if full:
            assert last >= batch_size / 4
        assert all(len(patch.spots) for batch in batches for patch in batch)


@steady
@given(SIZES, SEEDS)
def test_epochs_differ_and_runs_do_not(sizes, seed):
    plan = a_plan([*sizes, 100])

    def row(epoch, other=0):
        return [spots_of(batch) for batch in plan.shuffled(seed + other, epoch)]

    assert row(1) == row(1)
    assert row(0) != row(1)
    assert row(0) != row(0, 1)


def test_patches_are_cut_elsewhere_in_another_epoch():
    plan = a_plan([320], batch_size=10_000)
    first = [{spots_of([p])[0][1] for p in plan.shuffled(0, epoch)[0]} for epoch in range(2)]
    assert first[0] != first[1]


@steady
@given(SIZES, BATCH_SIZES, PATCHES, SEEDS)
def test_patches_are_runs_along_the_curve(sizes, batch_size, patch, seed):
    plan = a_plan(sizes, batch_size, patch)
    for batch in plan.shuffled(seed, 0):
        for _, spots in batch:
            assert len(spots) <= patch
            assert (np.diff(spots) == 1).all()


def test_most_patches_are_whole():
    patches = [p for batch in a_plan([300] * 6).shuffled(0, 0) for p in batch]
    whole = sum(len(p.spots) for p in patches if len(p.spots) == 16)
    assert whole > 0.6 * 1800  # the others end with their slide, or with their batch
    assert len(patches) < 1.5 * 1800 / 16


@pytest.mark.parametrize("weight", [2.0, 3.0])
def test_a_whole_weight_repeats_every_spot(weight):
    plan = a_plan([100, 90], weights={"s1": weight})
    counts = seen(plan.shuffled(3, 1))
    assert all(n == (1 if slide == "s0" else weight) for (slide, _), n in counts.items())
    assert len(counts) == 190


@pytest.mark.parametrize(("weight", "low", "high"), [(0.5, 0, 1), (1.5, 1, 2), (2.25, 2, 3)])
def test_a_broken_weight_is_met_on_average(weight, low, high):
    plan = a_plan([400, 90], patch=8, weights={"s0": weight})
    total, per_spot = 0, Counter()
    for epoch in range(40):
        counts = seen(plan.shuffled(0, epoch))
        own = Counter({spot: n for (slide, spot), n in counts.items() if slide == "s0"})
        assert set(own.values()) <= {low, high}
        assert sum(counts.values()) - own.total() == 90
        total += own.total()
        per_spot.update(own)
    # 40 epochs of 50 patches, each kept or not: standard deviation 0.011 of the spots
    assert total / (40 * 400) == pytest.approx(weight, abs=0.05)
    assert min(per_spot[spot] for spot in range(400)) > 0  # nobody is left out for good


def test_an_epoch_holds_something_however_small_the_weights():
    plan = a_plan([40], weights={"s0": 0.01})
    assert all(batch for epoch in range(50) for batch in plan.shuffled(0, epoch))


@pytest.mark.parametrize("window", [1, 3, 7])
def test_the_window_limits_how_many_tiles_are_alive(window, monkeypatch):
    cut_small(monkeypatch)
    plan = a_plan([200, 130, 90], batch_size=8, patch=4, window=window)
    assert len(plan.tiles) == 22
    row = [patch.tile for batch in plan.shuffled(1, 0) for patch in batch]
    first = {tile: row.index(tile) for tile in row}
    last = {tile: at for at, tile in enumerate(row)}
    alive = [sum(first[s] <= at <= last[s] for s in first) for at in range(len(row))]
    assert max(alive) <= window
    assert np.mean(alive) > 0.6 * window


def test_batches_mix_slides():
    batches = a_plan([150] * 6, window=6).shuffled(0, 0)
    slides = [len({patch.tile.slide for patch in batch}) for batch in batches]
    assert np.median(slides) >= 3
    assert sum(n > 1 for n in slides) >= 0.8 * len(slides)


@steady
@given(st.integers(1, 5000), st.integers(1, 700), st.data())
def test_tiles_cover_a_slide(n_spots, tile, data):
    with pytest.MonkeyPatch.context() as patched:
        cut_small(patched, tile)
        chosen = data.draw(st.sets(st.integers(0, n_spots - 1), max_size=30))
        spots = np.array(sorted(chosen), dtype=np.int64)
        cut = tiles_of("s", spots, n_spots)
        whole = list(tiles_of("s", np.arange(n_spots), n_spots))
    found = [s.start + spot for s, part in cut.items() for spot in part.tolist()]
    assert found == spots.tolist()
    assert all(len(part) for part in cut.values())
    assert set(cut) <= set(whole)  # the same cuts, whoever counts
    assert (whole[0].start, whole[-1].stop) == (0, n_spots)
    assert all(a.stop == b.start for a, b in pairwise(whole))
    lengths = [s.stop - s.start for s in whole]
    assert max(lengths) <= tile + 1
    assert max(lengths) - min(lengths) <= 2


def test_tiles_have_a_size_that_is_read_fast():
    lengths = [s.stop - s.start for s in tiles_of("s", np.arange(10_000), 10_000)]
    assert max(lengths) <= TILE
    assert min(lengths) > TILE / 2


@steady
@given(SIZES, BATCH_SIZES, SEEDS, st.integers(1, 9))
def test_a_batch_is_shared_without_loss_or_overlap(sizes, batch_size, seed, world):
    for batch in a_plan(sizes, batch_size).shuffled(seed, 0):
        parts = [part_of_process(batch, rank, world) for rank in range(world)]
        together = [spot for _, own in parts for spot in spots_of(own)]
        assert together == spots_of(batch)
        at = 0
        for rows, own in parts:
            assert (rows.start, rows.stop - rows.start) == (at, len(spots_of(own)))
            assert all(len(patch.spots) for patch in own)
            at = rows.stop
        lengths = [rows.stop - rows.start for rows, _ in parts]
        assert max(lengths) - min(lengths) <= 1
