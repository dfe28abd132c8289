"""An aligned slide: counts and log1p counts in step, neighborhoods, measured genes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from sagefm.pp.aligned import AlignedSlide, rank_by_place
from sagefm.pp.vocabulary import Vocabulary


def unsorted(n_spots, n_genes, seed):
    """Counts whose indices are in another order in every row, and the same, dense."""
    rng = np.random.default_rng(seed)
    dense = csr_matrix(random_array((n_spots, n_genes), density=0.3, rng=rng), dtype=np.float32)
    dense.data = rng.integers(1, 50, dense.nnz).astype(np.float32)
    order = rng.permutation(n_genes).astype(dense.indices.dtype)
    parts = (dense.data, order[dense.indices], dense.indptr)
    return csr_matrix(parts, shape=dense.shape), csr_matrix(parts, shape=dense.shape).toarray()


@given(n_spots=st.integers(1, 2100), n_genes=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_counts_and_log1p_counts_stay_in_step(n_spots, n_genes, seed):
    """Scipy sorts indices in place in some operations, and the two share theirs."""
    counts, dense = unsorted(n_spots, n_genes, seed)
    neighbors = np.arange(n_spots)[:, None]
    slide = AlignedSlide.of_counts(counts, neighbors, np.ones(n_genes, dtype=bool))
    log1p = slide.log1p
    log1p.max(axis=0)  # needs sorted indices
    np.testing.assert_array_equal(slide.counts.toarray(), dense)
    np.testing.assert_array_equal(log1p.toarray(), np.log1p(dense))
    np.testing.assert_allclose(slide.library_size, dense.sum(axis=1), rtol=1e-6)


def test_without_genes_they_were_not_measured():
    counts, dense = unsorted(30, 8, 0)
    slide = AlignedSlide.of_counts(counts, np.arange(30)[:, None], np.ones(8, dtype=bool))
    rest = slide.without(np.array([1, 5]))
    dense[:, [1, 5]] = 0
    np.testing.assert_array_equal(rest.counts.toarray(), dense)
    assert rest.measured.tolist() == [True, False, True, True, True, False, True, True]
    assert slide.measured.all()


def test_some_centers_keep_their_neighbors_at_hand(slide, model):
    whole = model.prepare(slide)
    some = whole.at(np.array([3, 17]))
    assert some.neighbors.tolist() == whole.neighbors[[3, 17]].tolist()
    np.testing.assert_allclose(model.embed(some), model.embed(whole)[[3, 17]], atol=1e-6)


def test_the_order_of_genes_changes_no_bit(slide, model):
    order = np.random.default_rng(0).permutation(slide.n_vars)
    np.testing.assert_array_equal(model.embed(slide[:, order].copy()), model.embed(slide))


@pytest.mark.parametrize("number", [0, 1])
def test_a_section_has_its_own_spots(number):
    counts, dense = unsorted(20, 6, 1)
    slide = AlignedSlide.of_counts(counts, np.arange(20)[:, None], np.ones(6, dtype=bool))
    slide.sections[12:] = 1
    section = slide.subset(np.flatnonzero(slide.sections == number))
    np.testing.assert_array_equal(section.counts.toarray(), dense[slide.sections == number])
    assert len(section.library_size) == (12, 8)[number]


def test_spots_are_ranked_by_place_within_their_section():
    places = np.array([[5.0, 1.0], [0.0, 9.0], [0.0, 2.0], [7.0, 0.0], [1.0, 0.0]])
    sections = np.array([1, 0, 0, 0, 1])
    assert rank_by_place(places, sections).tolist() == [1, 1, 0, 2, 0]


@pytest.mark.parametrize("step", [1, -1])
def test_to_align_changes_no_count_of_the_slide(slide, step):
    before = slide.X.copy()
    aligned = AlignedSlide.of(slide, Vocabulary(tuple(slide.var_names[::step])), 15)
    assert (aligned.counts[:, ::step] != before).nnz == 0
    assert np.array_equal(slide.X.toarray(), before.toarray())


def test_a_change_of_aligned_counts_is_no_change_of_the_slide(slide):
    aligned = AlignedSlide.of(slide, Vocabulary(tuple(slide.var_names)), 15)
    assert np.shares_memory(aligned.counts.data, slide.X.data)
    aligned.counts.data = aligned.counts.data.astype(np.uint16)
    assert slide.X.dtype == np.float32
