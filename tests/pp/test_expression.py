"""Normalized expression of several slides."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import sagefm
from sagefm import InputError
from sagefm.pp.expression import shared_expression


@pytest.fixture(scope="module")
def slides():
    one = sagefm.pp.simulate(80, seed=1)
    other = sagefm.pp.simulate(60, seed=2)
    return one, other[:, ::-1][:, 100:].copy()


def test_only_the_common_genes_whatever_their_order(slides):
    one, other = slides
    found = shared_expression(slides)
    common = set(one.var_names) & set(other.var_names)
    assert set(found.genes) <= common
    assert list(found.genes) == sorted(found.genes)
    for slide, matrix in zip(slides, found.counts, strict=True):
        np.testing.assert_array_equal(matrix.toarray(), slide[:, list(found.genes)].X.toarray())
    shuffled = shared_expression([one[:, ::-1].copy(), other])
    assert shuffled.genes == found.genes
    assert (shuffled.normalized[0] != found.normalized[0]).nnz == 0


def test_every_spot_is_scaled_to_the_same_library_size(slides):
    found = shared_expression(slides)
    sizes = [np.expm1(matrix.toarray()).sum(axis=1) for matrix in found.normalized]
    usual = np.median(np.concatenate([m.sum(axis=1).A1 for m in found.counts]))
    np.testing.assert_allclose(np.concatenate(sizes), usual, rtol=1e-4)


def test_a_spot_without_counts_stays_zero(slides):
    empty = slides[0].copy()
    empty.X = csr_matrix(empty.X.multiply((np.arange(80) != 5)[:, None]))
    matrix = shared_expression([empty]).normalized[0]
    assert np.isfinite(matrix.data).all()
    assert matrix[5].nnz == 0


def test_slides_without_a_common_gene_are_refused(slides):
    other = slides[1].copy()
    other.var_names = [f"x{name}" for name in other.var_names]
    with pytest.raises(InputError, match="use the same gene names"):
        shared_expression([slides[0], other])
