"""What-if questions that are answered again and again, against the functions for one question."""

import numpy as np
import pytest

from sagefm import InputError
from sagefm.tl import KNOCKOUT, Change, WhatIf, perturb, respond


@pytest.fixture(scope="module")
def pair(context_model, slide):
    counts = context_model.prepare(slide).counts
    most = np.argsort(-np.asarray(counts.sum(axis=0)).ravel())[:2]
    return tuple(context_model.vocabulary.symbols[i] for i in most)


@pytest.fixture(scope="module")
def what_if(slide, context_model):
    return WhatIf(slide, context_model)


@pytest.mark.parametrize("amount", [-1.0, 1.0])
def test_the_ends_are_a_knock_out_and_the_highest_count(
    what_if, slide, context_model, pair, amount
):
    gene, target = pair
    change = KNOCKOUT if amount < 0 else Change("quantile", 1.0)
    expected = respond(slide.copy(), context_model, {gene: change}, [target])[target]
    found = what_if.respond(gene, target, amount)
    assert np.abs(found).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_change_is_none_and_half_of_one_lies_between(what_if, pair):
    assert not what_if.respond(*pair, 0.0).any()
    half, whole = (np.abs(what_if.respond(*pair, amount)).mean() for amount in (-0.5, -1.0))
    assert 0 < half < whole


def test_an_answer_does_not_depend_on_what_was_asked_before(what_if, slide, context_model, pair):
    gene, target = pair
    what_if.respond(target, gene, 0.3)
    fresh = WhatIf(context_model.prepare(slide), context_model)
    np.testing.assert_array_equal(
        what_if.respond(gene, target, -0.7), fresh.respond(gene, target, -0.7)
    )


def test_the_test_is_that_of_perturb(what_if, slide, context_model, pair):
    [row] = perturb(slide, context_model, [pair], n_matched=20, n_null_spots=64).itertuples()
    found = what_if.compare(*pair, n_matched=20, n_spots=64)
    assert (found.p, found.n) == (row.p, 20)
    assert (found.low, found.high) == (row.null_low, row.null_high)
    assert found.beyond == (row.p < 0.05)


def test_what_cannot_be_asked_is_said(what_if, pair, context_model, slide):
    with pytest.raises(InputError, match="choose two genes"):
        what_if.respond(pair[0], pair[0], 1.0)
    with pytest.raises(InputError, match="no count on this slide"):
        what_if.respond("NOT1A", pair[0], 1.0)
    with pytest.raises(InputError, match="from -1 to 1"):
        what_if.respond(*pair, 1.5)
    assert "NOT1A" not in what_if.genes
    assert pair[0] in what_if.genes
