"""Dense products by oneDNN, against those of numpy in double precision."""

import numpy as np
import pytest
import torch

from sagefm.nn import dense

SHAPES = [(1, 1, 1), (3, 70, 5), (64, 33, 129), (0, 4, 3), (4, 0, 3), (4, 3, 0)]


def matrices(n, inner, width, flipped):
    torch.manual_seed(0)
    a = torch.randn(inner, n).T if flipped else torch.randn(n, inner)
    b = torch.randn(width, inner).T if flipped else torch.randn(inner, width)
    return [a.requires_grad_(), b.requires_grad_(), torch.randn(width, requires_grad=True)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_product_and_gradients_are_those_of_double_precision(shape, flipped, biased):
    inputs = matrices(*shape, flipped)[: 3 if biased else 2]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    expected = exact[0] @ exact[1] + (exact[2] if biased else 0)
    got = dense.product(*inputs)
    assert got.dtype == torch.float32
    toward = torch.randn_like(expected)
    pairs = [(got, expected)]
    pairs += zip(
        torch.autograd.grad(got, inputs, toward.float()),
        torch.autograd.grad(expected, exact, toward),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("flipped", [False, True])
def test_the_gradient_of_weights_lies_as_the_weights_do(flipped):
    a, b, _ = matrices(8, 16, 24, flipped)
    (gradient,) = torch.autograd.grad(dense.product(a, b).sum(), [b])
    assert gradient.stride() == b.stride()


def test_where_the_operator_is_missing_torch_multiplies(monkeypatch):
    a, b, bias = (each.detach() for each in matrices(8, 16, 24, False))
    ours = dense.product(a, b, bias)
    monkeypatch.setattr(dense, "_has_wide_vectors", lambda: False)
    theirs = dense.product(a, b, bias)
    torch.testing.assert_close(theirs, torch.addmm(bias, a, b), atol=0, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_other_precisions_are_left_to_torch():
    a, b = (torch.randn(4, 4, dtype=torch.float64) for _ in range(2))
    assert torch.equal(dense.product(a, b), a @ b)
    with torch.autocast("cpu", torch.bfloat16):
        assert dense.product(a.float(), b.float()).dtype == torch.bfloat16


def test_every_row_is_multiplied_by_itself():
    a, b, _ = (each.detach() for each in matrices(200, 64, 32, False))
    whole = dense.product(a, b)
    np.testing.assert_allclose(dense.product(a[50:60], b), whole[50:60], atol=1e-5)
