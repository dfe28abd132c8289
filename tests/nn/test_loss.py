"""The loss block by block, against the dense one, and against nothing but numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sagefm.nn import draw_masks
from sagefm.nn.published.loss import dense_masked_error, masked_error

steady = settings(derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def a_task(n_centers=9, n_genes=70, width=12, fraction=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = draw_masks(n_centers, n_genes, fraction, np.random.default_rng(seed))

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    learned = [draw(n_centers, width), draw(n_genes, width) / width**0.5, draw(n_genes)]
    return [each.requires_grad_() for each in learned], draw(n_centers, n_genes).abs(), masks


@steady
@given(st.integers(1, 12), st.integers(1, 80), st.floats(0.01, 0.99), SEEDS)
def test_both_ways_give_the_same_loss_and_gradients(n_centers, n_genes, fraction, seed):
    learned, truth, masks = a_task(n_centers, n_genes, 7, fraction, seed)
    share = 1 / masks.n_masked()
    ours = masked_error(*learned, truth, masks, share)
    mine = torch.autograd.grad(ours, learned)
    theirs = dense_masked_error(*learned, truth, masks, share)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for a, b in zip(mine, torch.autograd.grad(theirs, learned), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("error_of", [masked_error, dense_masked_error])
def test_only_hidden_entries_count_each_with_its_share(error_of):
    learned, truth, masks = a_task()
    z, weight, bias = (each.detach().numpy() for each in learned)
    predicted = np.maximum(z @ weight.T + bias, 0)
    in_order = truth.numpy()
    columns = masks.order.numpy()
    hidden = masks.dense().numpy()
    expected = sum(
        (predicted[i, gene] - in_order[i, place]) ** 2
        for place, gene in enumerate(columns)
        for i in range(len(z))
        if hidden[i, gene]
    )
    for share in (1.0, 0.25):
        assert float(error_of(*learned, truth, masks, share).detach()) == pytest.approx(
            share * expected, rel=1e-5
        )
    changed = torch.where(masks.in_order(), truth, 99.0)  # what is shown does not matter
    a, b = error_of(*learned, truth, masks, 1.0), error_of(*learned, changed, masks, 1.0)
    assert torch.equal(a, b)


def test_the_gradient_follows_what_comes_after():
    learned, truth, masks = a_task()
    once = torch.autograd.grad(masked_error(*learned, truth, masks, 0.1), learned)
    thrice = torch.autograd.grad(3 * masked_error(*learned, truth, masks, 0.1), learned)
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


class Counting(TorchDispatchMode):
    """Count what torch does, by name."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.done.append(function.overloadpacket.__name__)
        return function(*arguments, **(named or {}))


def test_without_gradients_the_loss_is_the_same_and_none_are_computed():
    learned, truth, masks = a_task()
    with Counting() as learning:
        expected = masked_error(*learned, truth, masks, 0.1)
    with torch.no_grad(), Counting() as judging:
        got = masked_error(*learned, truth, masks, 0.1)
    assert torch.equal(got, expected.detach())
    products = [
        sum(name in ("mm", "addmm", "_linear_pointwise") for name in counting.done)
        for counting in (learning, judging)
    ]
    assert products[0] == 3 * products[1] > 0  # two more per block for the gradients


def test_bfloat16_is_near():
    learned, truth, masks = a_task(n_centers=32, n_genes=200, width=32)
    share = 1 / masks.n_masked()
    exact = masked_error(*learned, truth, masks, share)
    with torch.autocast("cpu", torch.bfloat16):
        rough = masked_error(learned[0].bfloat16(), *learned[1:], truth, masks, share)
    assert rough.dtype == torch.float32
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.02)
    for a, b in zip(
        torch.autograd.grad(rough, learned), torch.autograd.grad(exact, learned), strict=True
    ):
        assert a.dtype == torch.float32
        assert (
            float((a - b).norm() / b.norm()) < 0.1
        )  # few terms stand on the other side of the ReLU
