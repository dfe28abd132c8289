"""What every operator of a network sees of a change, and slides that share an object."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from sagefm.model import Config, SageFM
from sagefm.pp.simulate import simulate
from sagefm.tl import explain, influence, perturb, respond
from sagefm.tl.perturbation._effects import shuffled_neighbors
from sagefm.tl.perturbation._perturber import Perturber

N_SPOTS, N_GENES, SIZE = 12, 9, 4
GENES, HIDDEN = np.array([7, 2, 5]), np.array([2, 8])


class Spied:
    """Centers with shares of their own, that keep what they are told of changes."""

    def __init__(self, shares):
        self.weights, self.pooled, self.told = shares, torch.zeros(shares.shape[1], 1), []

    def changed(self, genes, change, wanted):
        self.told.append(change.numpy())
        return torch.zeros(len(self.pooled), len(wanted))


def example(seed, n_operators):
    """A screen of some spots of a small slide, and all that it was made of."""
    rng = np.random.default_rng(seed)
    x = csr_matrix(random_array((N_SPOTS, N_GENES), density=0.5, rng=rng), dtype=np.float32)
    neighbors = np.array([rng.permutation(N_SPOTS)[:SIZE] for _ in range(5)])
    shares = rng.random((n_operators, 5, SIZE)) * (rng.random((n_operators, 1, SIZE)) < 0.7)
    spied = Spied(shares)
    screen = Perturber(
        SimpleNamespace(centers=lambda rows, masked: spied), x.tocsc(), neighbors, HIDDEN,
        hold="attention",
    )  # fmt: skip
    return screen, spied, x.toarray().astype(float), neighbors, rng


CASES = {"seed": st.integers(0, 2**32 - 1), "n_operators": st.integers(1, 4)}
steady = settings(derandomize=True, deadline=None, max_examples=30)


@steady
@given(**CASES, where=st.sampled_from(["neighbors", "center", "neighborhood"]))
def test_each_operator_adds_up_changes_by_its_shares(seed, n_operators, where):
    screen, spied, x, neighbors, rng = example(seed, n_operators)
    change = rng.normal(size=(N_SPOTS, len(GENES)))
    around = np.einsum("rcp,cpg->rcg", spied.weights[:, :, 1:], change[neighbors[:, 1:]])
    center = spied.weights[:, :, :1] * (change[neighbors[:, 0]] * ~np.isin(GENES, HIDDEN))
    wanted = {"neighbors": around, "center": center, "neighborhood": around + center}[where]
    screen.predict(GENES, (x[:, GENES] + change)[None], HIDDEN, where)
    np.testing.assert_allclose(spied.told[0], wanted, atol=1e-6)


@steady
@given(**CASES)
def test_a_level_in_all_neighbors_as_each_operator_sees_it(seed, n_operators):
    screen, spied, x, neighbors, _ = example(seed, n_operators)
    levels = np.array([[0.0, 2.0], [0.0, 1.0], [0.5, 3.0]])
    assert len(list(screen.means(GENES, levels, [HIDDEN] * 3))) == 3
    told = iter(spied.told)
    for gene, heights in zip(GENES, levels, strict=True):
        for height in heights:
            moved = height - x[neighbors[:, 1:], gene]
            wanted = np.einsum("rcp,cp->rc", spied.weights[:, :, 1:], moved)
            np.testing.assert_allclose(next(told)[:, :, 0], wanted, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_strangers_are_of_the_same_slide(seed):
    rng = np.random.default_rng(seed)
    slides = rng.permutation(np.repeat(np.arange(3), [20, 31, 7]))
    spots = np.sort(rng.choice(len(slides), rng.integers(1, len(slides)), replace=False))
    found = shuffled_neighbors(slides, spots, seed)
    np.testing.assert_array_equal(slides[found], slides[spots])
    assert len(np.unique(found)) == len(spots)
    alone = np.random.default_rng([seed, 1]).choice(len(slides), len(spots), replace=False)
    np.testing.assert_array_equal(shuffled_neighbors(0 * slides, spots, seed), alone)


# A network that reads whole slides.


@pytest.fixture(scope="module")
def context(vocabulary):
    model = SageFM.new(vocabulary, Config("context", widths=(12, 16, 16, 8)), seed=5)
    with torch.no_grad():  # so that every part counts
        model.network.first.mul_(5)
        model.network.decoder.mul_(30)
        torch.nn.init.normal_(model.network.ring_query.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def genes(slide, context):
    """Those of the model that the slide shows, the most frequent first."""
    shown = [gene for gene in context.vocabulary if gene in slide.var_names]
    depth = np.asarray(slide[:, shown].X.sum(axis=0)).ravel()
    return [shown[i] for i in np.argsort(-depth)]


@pytest.fixture(scope="module")
def two():
    """Two slides, and an object that holds their rows mixed, but each slide's in its order."""
    slides = {"a": simulate(60, seed=20), "b": simulate(80, seed=21)}
    whole = ad.concat(slides, label="slide", index_unique="-")
    turns = np.random.default_rng(0).permutation(np.repeat([0, 1], [60, 80]))
    return slides, whole[np.argsort(np.argsort(turns, kind="stable"))].copy()


def test_responses_on_slides_of_one_object_are_those_of_each(two, context, genes):
    slides, whole = two
    changes = {genes[0]: 2.0, genes[1]: 0.0}
    found = respond(whole, context, changes, genes[1:5], where="neighborhood", slide_key="slide")
    for name, slide in slides.items():
        rows = whole.obs["slide"] == name
        alone = respond(slide.copy(), context, changes, genes[1:5], where="neighborhood")
        alone.index += f"-{name}"
        own = found[rows.to_numpy()]
        assert own.abs().to_numpy().max() > 1e-3
        pd.testing.assert_frame_equal(own, alone.loc[own.index], atol=1e-5, rtol=1e-3)


def test_what_is_held_is_said(slide, context, genes):
    """Counts and log1p counts reach the network as they are; what is held makes a difference."""
    changes = {genes[0]: 3.0}
    full, held = (
        respond(slide.copy(), context, changes, genes[1:4], hold=hold).to_numpy()
        for hold in ("nothing", "attention")
    )
    assert np.abs(full).max() > 1e-3
    assert np.abs(full - held).max() > 1e-3
    prepared = context.prepare(slide)
    ligand, wanted = map(context.vocabulary.positions, (genes[:1], genes[1:4]))
    one = (context.encode(prepared), prepared.log1p.tocsc(), prepared.neighbors, wanted)
    for hold, effect in (("nothing", full), ("attention", held)):
        screen = Perturber(*one, hold)
        [means] = screen.means(ligand, np.array([[3.0, 0.0]]), [wanted])
        before = screen.unchanged(wanted).numpy().mean(axis=0)
        np.testing.assert_allclose(means[0] - before, effect.mean(axis=0), atol=1e-5)


def test_pairs_are_asked_within_slides(two, context, genes, monkeypatch):
    """Of what is compared, too: no neighborhood crosses slides."""
    _, whole = two
    codes = pd.factorize(whole.obs["slide"])[0]
    asked = []
    init = Perturber.__init__

    def looking(self, encoded, log1p, neighbors, masked, hold="nothing"):
        asked.append(neighbors)
        init(self, encoded, log1p, neighbors, masked, hold)

    monkeypatch.setattr(Perturber, "__init__", looking)
    how = {"n_matched": 5, "n_null_spots": 30}
    table = perturb(whole, context, [(genes[0], genes[1])], slide_key="slide", **how)
    assert np.isfinite(table[["effect", "effect_shuffled", "z"]].to_numpy()).all()
    assert len(asked) == 4
    for neighbors in asked:
        assert (codes[neighbors] == codes[neighbors[:, :1]]).all()


def test_influences_of_the_center_are_their_own(slide, context, genes):
    """Of a network that treats center and neighbors apart, in the table as in the matrix."""
    table = influence(slide, context, n_edges=10**6)
    some = table[table["target"].isin(genes[:6])][:24]
    for where in ("neighbors", "center"):
        matrix = influence(slide, context, genes[:6], sources="all", where=where)
        wanted = [matrix.loc[row.source, row.target] for row in some.itertuples()]
        np.testing.assert_allclose(some[where], wanted, rtol=1e-4, atol=1e-9)
    ratio = some["center"] / some["neighbors"]
    assert ratio.max() - ratio.min() > 0.1


def test_a_network_of_whole_slides_is_explained(slide, context):
    table = explain(slide, context, list(slide.obs_names[:2]), top=5)
    assert len(table) == 10
    assert (table["total"] != 0).all()
