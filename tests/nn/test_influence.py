"""Derivatives of predictions, against automatic differentiation and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from sagefm.nn import build
from sagefm.nn.influence import strongest
from sagefm.nn.published.gradient import mean_gradient, path_gradient

N_GENES = 40
WIDTHS = [(12, 6), (12, 8, 10), (12, 8, 9, 7, 10)]


def example(widths, seed=0, n_spots=30):
    """A network whose biases count, and pooled inputs that bend its units this way and that."""
    torch.manual_seed(seed)
    network = build("published", N_GENES, widths)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return network, torch.randn(n_spots, widths[0])


def by_autograd(network, pooled, targets):
    rows = [jacobian(lambda p: network.decode(network.embed(p), targets), row) for row in pooled]
    return torch.stack(rows).mean(dim=0)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("n_targets", [3, N_GENES])
def test_it_is_the_mean_derivative(widths, n_targets):
    """Few targets go one by one, all genes by the units of the last hidden layer."""
    network, pooled = example(widths)
    targets = torch.randperm(N_GENES)[:n_targets]
    wanted = by_autograd(network, pooled, targets)
    assert wanted.abs().max() > 0.01
    found = mean_gradient(network, pooled, targets)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_both_ways_agree_and_are_both_taken(monkeypatch):
    network, pooled = example(WIDTHS[2])
    every = torch.arange(N_GENES)
    shared = mean_gradient(network, pooled, every)
    with monkeypatch.context() as patched:
        patched.setattr("sagefm.nn.published.gradient._add_by_target", None)
        mean_gradient(network, pooled, every)
    monkeypatch.setattr("sagefm.nn.published.gradient._add_by_unit", None)
    single = torch.cat([mean_gradient(network, pooled, part) for part in every.split(7)])
    torch.testing.assert_close(shared, single, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_targets", [3, N_GENES])
def test_small_blocks_change_nothing(n_targets, monkeypatch):
    network, pooled = example(WIDTHS[2])
    targets = torch.arange(n_targets)
    whole = mean_gradient(network, pooled, targets)
    monkeypatch.setattr("sagefm.nn.published.gradient._SPOTS", 7)
    monkeypatch.setattr("sagefm.nn.published.gradient._ENTRIES", 400)
    told = []
    torch.testing.assert_close(
        mean_gradient(network, pooled, targets, told.append), whole, atol=1e-6, rtol=1e-5
    )
    assert told == sorted(set(told))
    assert len(told) >= 5
    assert told[-1] == len(pooled)


@pytest.mark.parametrize("mostly", [-50.0, 50.0])
def test_targets_that_are_always_or_never_above_zero(mostly):
    network, pooled = example(WIDTHS[2])
    torch.nn.init.constant_(network.decoder.bias, mostly)
    found = mean_gradient(network, pooled, torch.arange(N_GENES))
    wanted = by_autograd(network, pooled, torch.arange(N_GENES))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert found.any() == (mostly > 0)


def dense_choice(values, own, n):
    """Sort everything: size, then the earlier target and source; no zeros, no gene on itself."""
    every = [(s, t) for t, s in np.ndindex(values.T.shape) if s != own[t] and values[s, t] != 0]
    chosen = sorted(every, key=lambda edge: -abs(values[edge]))[:n]
    return [(*edge, values[edge]) for edge in chosen]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n_sources=st.integers(1, 12),
    n_targets=st.integers(1, 9),
    n=st.integers(1, 120),
    entries=st.integers(1, 200),
)
def test_the_strongest_are_those_of_a_dense_sort(seed, n_sources, n_targets, n, entries):
    """Small whole numbers: full of ties and of zeros, and exact in any order of summation."""
    rng = np.random.default_rng(seed)
    first = rng.integers(-1, 2, (n_sources, 3)).astype(np.float32)
    gradient = rng.integers(-1, 2, (n_targets, 3)).astype(np.float32)
    own = rng.integers(-1, n_sources, n_targets)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sagefm.nn.influence._ENTRIES", entries)
        found = strongest(*map(torch.from_numpy, (first, gradient, own)), n)
    edges = list(zip(*(part.tolist() for part in found), strict=True))
    assert edges == dense_choice(first @ gradient.T, own, n)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 9), widths=st.sampled_from(WIDTHS))
def test_what_a_path_adds_up_to(seed, steps, widths):
    """However few the steps: the distance between the embeddings of its ends."""
    network, ends = example(widths, seed, n_spots=2)
    gradient = path_gradient(network, *ends, steps)
    start, end = network.embed(ends).detach()
    torch.testing.assert_close(gradient @ (ends[1] - ends[0]), (end - start).norm())


def test_many_steps_give_the_integral_of_the_gradient():
    network, (start, end) = example(WIDTHS[2], n_spots=2)
    moved = (network.embed(end) - network.embed(start)).detach()
    shares = (torch.arange(4000) + 0.5) / 4000
    points = (start + shares[:, None] * (end - start)).requires_grad_()
    (network.embed(points) @ (moved / moved.norm())).sum().backward()
    integral = points.grad.mean(dim=0)
    errors = [
        float((path_gradient(network, start, end, steps) - integral).abs().max())
        for steps in (1, 64)
    ]
    assert errors[0] > 10 * errors[1]
    assert errors[1] < 1e-3 * integral.abs().max()


def test_a_path_that_leads_nowhere():
    network, (start, _) = example(WIDTHS[2], n_spots=2)
    assert not path_gradient(network, start, start, 4).any()
