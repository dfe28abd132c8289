"""The learning rate and the end of training, against torch's own schedules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.schedule import learning_rate, stalled

steady = settings(derandomize=True, deadline=None)


def an_optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def losses_of(seed, n, fall):
    """A curve that falls, with noise and with tiles where nothing happens."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(-fall, 0.02, n) * (rng.random(n) < 0.5)
    return np.exp(np.cumsum(steps)).tolist()


@steady
@given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.sampled_from([0.0, 1e-4, 1e-3, 0.05]))
def test_the_plateau_is_that_of_torch(seed, n, fall):
    losses = losses_of(seed, n, fall)
    theirs = an_optimizer()
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.9, patience=10)
    settings_ = TrainTable(learning_rate=1.0)
    for epoch in range(n + 1):
        expected = theirs.param_groups[0]["lr"]
        assert learning_rate(settings_, epoch, n, losses[:epoch]) == pytest.approx(expected)
        if epoch < n:
            schedule.step(losses[epoch])


def test_the_plateau_does_fall():
    rate = learning_rate(TrainTable(learning_rate=2.0), 0, 1, [1.0] * 40)
    assert rate == pytest.approx(2.0 * 0.9**3)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_the_rate_rises_in_a_line(schedule):
    recipe = TrainTable(learning_rate=1.0, warmup_steps=9, schedule=schedule)
    rates = [learning_rate(recipe, step, 10**9, []) for step in range(10)]
    assert rates == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert learning_rate(recipe, 10, 10**9, []) == pytest.approx(1.0)


def test_without_warmup_the_first_step_has_the_whole_rate():
    assert learning_rate(TrainTable(learning_rate=0.5), 0, 10, []) == 0.5


@pytest.mark.parametrize("warmup", [0, 7])
def test_the_cosine_is_that_of_torch(warmup):
    n = 40
    theirs = an_optimizer()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=n - warmup)
    recipe = TrainTable(learning_rate=1.0, warmup_steps=warmup, schedule="cosine")
    for step in range(warmup, n):
        expected = theirs.param_groups[0]["lr"]
        assert learning_rate(recipe, step, n, [1.0] * 50) == pytest.approx(expected)
        theirs.step()
        schedule.step()
    assert learning_rate(recipe, n, n, []) == pytest.approx(0.0)
    assert learning_rate(recipe, n + 5, n, []) == pytest.approx(0.0)


@steady
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), max_size=12), st.integers(1, 5))
def test_training_ends_after_so_many_epochs_without_a_better_one(losses, patience):
    waited, best = 0, math.inf
    for loss in losses:
        waited, best = (0, loss) if loss < best else (waited + 1, best)
    assert stalled(losses, patience) == (waited >= patience)


def test_training_ends_when_the_loss_is_no_number():
    assert stalled([1.0, math.nan], 10)
    assert stalled([math.inf], 10)
    assert not stalled([], 1)
    assert not stalled([1.0], 1)
