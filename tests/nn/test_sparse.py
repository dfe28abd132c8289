"""Sparse rows times dense weights, against the same product spelled out with its zeros."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from sagefm.nn import SparseRows

steady = settings(derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def a_matrix(n_rows, n_genes, density, seed):
    """Log1p counts with rows that show nothing and genes that nobody shows."""
    rng = np.random.default_rng(seed)
    matrix = csr_matrix(random_array((n_rows, n_genes), density=density, rng=rng), dtype=np.float32)
    matrix = csr_matrix(
        matrix.multiply(rng.random((n_rows, 1)) < 0.8).multiply(rng.random(n_genes) < 0.8)
    )
    matrix.eliminate_zeros()
    return csr_matrix(matrix, dtype=np.float32)


def both_ways(matrix, width, seed):
    """Product and gradient of our rows, and of the dense matrix by autograd in float64."""
    torch.manual_seed(seed)
    weights = torch.randn(matrix.shape[1], width, requires_grad=True)
    toward = torch.randn(matrix.shape[0], width)
    ours = SparseRows.from_scipy(matrix).times(weights)
    ours.backward(toward)
    exact = weights.detach().double().requires_grad_()
    theirs = torch.from_numpy(matrix.toarray()).double() @ exact
    theirs.backward(toward.double())
    return (ours, weights.grad), (theirs, exact.grad)


@steady
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 150), st.floats(0, 1), SEEDS)
def test_product_and_gradient_are_those_of_the_dense_matrix(n_rows, n_genes, width, density, seed):
    matrix = a_matrix(n_rows, n_genes, density, seed)
    for ours, exact in zip(*both_ways(matrix, width, seed), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    rows = SparseRows.from_scipy(a_matrix(7, 9, 0.5, 1))
    rows = rows._replace(values=rows.values.double())
    weights = torch.randn(9, 70, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rows.times, weights, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 8), (1, 1), (3, 200)])
def test_rows_that_show_nothing_give_zeros(shape):
    matrix = csr_matrix(shape, dtype=np.float32)
    (product, gradient), _ = both_ways(matrix, 66, 0)
    assert product.shape == (shape[0], 66)
    assert not product.any()
    assert not gradient.any()


def test_empty_rows_and_unused_genes_stay_where_they_are():
    matrix = np.zeros((4, 6), dtype=np.float32)
    matrix[1, [0, 4]] = 1, 2
    matrix[3, 4] = 3
    (product, gradient), _ = both_ways(csr_matrix(matrix), 3, 0)
    assert product.any(dim=1).tolist() == [False, True, False, True]
    assert gradient.any(dim=1).tolist() == [True, False, False, False, True, False]


@steady
@given(st.integers(1, 12), st.integers(1, 40), st.floats(0, 1), SEEDS)
def test_dense_and_transposed_hold_the_same_numbers(n_rows, n_genes, density, seed):
    matrix = a_matrix(n_rows, n_genes, density, seed)
    rows = SparseRows.from_scipy(matrix)
    np.testing.assert_array_equal(rows.dense(n_genes).numpy(), matrix.toarray())
    turned = rows.transposed(n_genes)
    np.testing.assert_array_equal(turned.dense(n_rows).numpy(), matrix.toarray().T)


def test_nothing_is_copied_from_scipy():
    matrix = a_matrix(5, 6, 0.5, 0)
    rows = SparseRows.from_scipy(matrix)
    assert rows.values.data_ptr() == matrix.data.ctypes.data
