"""Slides that are read one by one, against one reading of all their spots."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from arrays import aligned
from sagefm import InputError
from sagefm.nn import MaskedGenes, NeighborhoodChange, build, encode
from sagefm.nn.multi_slide import MultiSlide

N_GENES, SIZE = 30, 4
GENES, WANTED = torch.tensor([3, 8, 20]), torch.tensor([1, 3, 29, 12])


def example(sizes, seed):
    """Slides whose rows are shuffled together: joined, whole, some neighborhoods."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = build("published", N_GENES, (12, 8, 9, 7, 10))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    slides = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = csr_matrix(random_array((len(slides), N_GENES), density=0.4, rng=rng), dtype=np.float32)
    own = [np.flatnonzero(slides == slide) for slide in range(len(sizes))]
    centers = rng.permutation(len(slides))[: rng.integers(1, len(slides), endpoint=True)]
    others = [rng.choice(own[slides[row]], SIZE - 1, replace=False) for row in centers]
    neighbors = np.column_stack([centers, others])
    measured = np.ones(N_GENES, dtype=bool)
    each = [encode(network, aligned(x[rows], measured, np.zeros(len(rows), int))) for rows in own]
    return MultiSlide(each, slides), encode(network, aligned(x, measured, slides)), neighbors


def same(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


CASES = {
    "sizes": st.lists(st.integers(SIZE, 12), min_size=1, max_size=4),
    "seed": st.integers(0, 2**32 - 1),
}
steady = settings(derandomize=True, deadline=None, max_examples=25)


@steady
@given(**CASES, how=st.sampled_from(["nothing", "all", "some", "around"]))
def test_centers_answer_as_on_one_slide(sizes, seed, how):
    joined, whole, neighbors = example(sizes, seed)
    genes = np.array([2, 3, 11, 29])
    mask = np.random.default_rng(seed).random((len(neighbors), len(genes))) < 0.5
    hidden = {
        "nothing": None, "all": MaskedGenes(genes), "some": MaskedGenes(genes, mask),
        "around": MaskedGenes(genes, mask, neighbors=True),
    }[how]  # fmt: skip
    found, wanted = (reading.centers(neighbors, hidden) for reading in (joined, whole))
    same(found.pooled, wanted.pooled)
    same(found.predict(), wanted.predict())
    same(found.predict(WANTED), wanted.predict(WANTED))
    same(found.unchanged(WANTED), wanted.unchanged(WANTED))
    change = torch.randn(1, len(neighbors), len(GENES))
    same(found.changed(GENES, change, WANTED), wanted.changed(GENES, change, WANTED))
    parts = torch.randn(2, 3, len(neighbors), SIZE, len(GENES))
    around = NeighborhoodChange(GENES, *parts)
    same(found.recomputed(around, WANTED), wanted.recomputed(around, WANTED))


@steady
@given(**CASES)
def test_influences_are_means_over_all_centers(sizes, seed):
    joined, whole, neighbors = example(sizes, seed)
    told = []
    found = joined.centers(neighbors).influence(WANTED, told.append)
    wanted = whole.centers(neighbors).influence(WANTED)
    assert found.keys() == wanted.keys()
    for where in wanted:
        same(found[where], wanted[where])
    assert told == sorted(told)
    assert told[-1] == len(neighbors)
    same(joined.centers(neighbors).influence(WANTED), found)


@steady
@given(**CASES)
def test_embeddings_and_their_derivatives(sizes, seed):
    joined, whole, neighbors = example(sizes, seed)
    same(joined.embed(neighbors), whole.embed(neighbors))
    toward = torch.randn(2, len(neighbors), 10)
    same(joined.pull_back(neighbors, toward), whole.pull_back(neighbors, toward))


@steady
@given(**CASES)
def test_a_spot_is_explained_by_its_own_slide(sizes, seed):
    joined, whole, neighbors = example(sizes, seed)
    slides = joined._slides[neighbors[:, 0]]
    own, others = (neighbors[(slides == slides[0]) == here] for here in (True, False))
    found, wanted = joined.explain(own[0], neighbors, 3), whole.explain(own[0], own, 3)
    for part, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(part, exact, atol=1e-5)
    with pytest.raises(InputError, match="against: has no spot on the slide"):
        joined.explain(own[0], others, 3)


def test_weights_are_in_the_order_of_the_centers():
    """Those of the published network are all the same, so another says which spot is asked."""

    class Asked:
        def __init__(self, slide):
            self.slide = slide

        def centers(self, neighbors, hidden):
            shares = np.stack([neighbors, np.full_like(neighbors, self.slide)])
            return SimpleNamespace(weights=shares, pooled=torch.zeros(len(neighbors), 1))

    slides = np.array([1, 0, 0, 1, 1, 0])
    neighbors = np.array([[3, 0], [1, 5], [4, 3], [5, 2], [0, 4]])
    shares = MultiSlide([Asked(0), Asked(1)], slides).centers(neighbors).weights
    assert shares[0].tolist() == [[1, 0], [0, 2], [2, 1], [2, 1], [0, 2]]
    assert shares[1, :, 0].tolist() == [1, 0, 1, 0, 1]
