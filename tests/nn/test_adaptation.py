"""Adapting the context network: what reaches the weights, what is kept, what predicts what."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sagefm.nn import Context, MaskedGenes, adapted, build, cross_fit, encode, encode_folds
from sagefm.nn.context import ContextSlide, adaptation
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.neighborhood import nearest

N_GENES = 40
WIDTHS = (8, 12, 12, 6)


def network(seed=0):
    torch.manual_seed(seed)
    made = build("context", N_GENES, WIDTHS)
    assert isinstance(made, Context)
    return made.eval()


def tissue(n_spots=120, seed=0, noise=False):
    """A slide of two tissues side by side, or of spots that are all alike."""
    rng = np.random.default_rng(seed)
    profiles = rng.dirichlet(np.full(N_GENES, 0.3), 2)
    points = np.stack([np.arange(n_spots) // 10, np.arange(n_spots) % 10], axis=1) * 1.0
    kind = np.zeros(n_spots, int) if noise else np.arange(n_spots) * 2 // n_spots
    counts = rng.poisson(profiles[kind] * 300).astype(np.float32)
    return AlignedSlide.of_counts(
        csr_matrix(counts), nearest(points, 15), np.ones(N_GENES, dtype=bool)
    )


def weights(made):
    return {name: values.clone() for name, values in made.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def slide():
    return tissue()


@pytest.fixture
def quick(monkeypatch):
    """Few steps, which may go far."""
    monkeypatch.setattr("sagefm.nn.context.folds._STEPS", (4, 4))
    monkeypatch.setattr(adaptation, "_EVERY", 4)
    monkeypatch.setattr(adaptation, "_LEARNING_RATE", 5e-3)


def test_held_out_spots_are_predicted_better(slide, monkeypatch):
    monkeypatch.setattr(adaptation, "_LEARNING_RATE", 5e-3)
    result = adapted(network(), [slide], [np.arange(120)], n_steps=20, seed=0)
    assert result.n_steps > 0
    assert result.error < result.error_before


def test_the_network_itself_is_not_changed(slide):
    made = network()
    before = weights(made)
    adapted(made, [slide], [np.arange(120)], n_steps=4, seed=0)
    assert same(before, made.state_dict())


def test_weights_of_the_beginning_are_kept_where_steps_do_harm(slide, monkeypatch):
    monkeypatch.setattr(adaptation, "_LEARNING_RATE", 3.0)
    made = network()
    result = adapted(made, [slide], [np.arange(120)], n_steps=10, seed=0)
    assert result.n_steps == 0
    assert result.error == result.error_before
    assert same(made.state_dict(), result.network.state_dict())


def test_same_seed_same_weights_and_another_seed_others(slide):
    def fitted(seed):
        return adapted(network(), [slide], [np.arange(120)], n_steps=4, seed=seed).network

    assert same(fitted(1).state_dict(), fitted(1).state_dict())
    assert not same(fitted(1).state_dict(), fitted(2).state_dict())


def test_genes_that_no_slide_measures_and_missing_genes_keep_their_weights(slide, quick):
    measured = np.arange(N_GENES) >= 5
    made, panel = network(), replace(slide.without(np.arange(5)), measured=measured)
    after = adapted(made, [panel], [np.arange(120)], n_steps=4, seed=0).network.state_dict()
    before = made.state_dict()
    for name in ("first", "decoder"):
        assert torch.equal(before[name][:5], after[name][:5])
        assert not torch.equal(before[name][5:], after[name][5:])
    assert torch.equal(before["missing"], after["missing"])


@pytest.fixture
def centers_of_fits(monkeypatch):
    """The centers of all steps and evaluations, a set for each call of `adapted`."""
    seen, error, fit = [], adaptation.tile_error, adaptation.adapted

    def watched_error(network, log1p, counts, neighbors, *rest):
        seen[-1].update(neighbors[:, 0].tolist())
        return error(network, log1p, counts, neighbors, *rest)

    def watched_fit(*arguments, **options):
        seen.append(set())
        return fit(*arguments, **options)

    monkeypatch.setattr(adaptation, "tile_error", watched_error)
    monkeypatch.setattr("sagefm.nn.context.folds.adapted", watched_fit)
    return seen


def test_only_the_named_spots_are_predicted_in_steps(slide, centers_of_fits):
    named = np.arange(0, 120, 3)
    centers_of_fits.append(set())
    adapted(network(), [slide], [named], n_steps=6, seed=0)
    assert centers_of_fits == [set(named.tolist())]


def test_no_spot_is_a_target_of_the_weights_that_predict_it(slide, quick, centers_of_fits):
    cross_fit(network(), slide, 0)
    every = set(range(120))
    assert centers_of_fits == [every - set(range(fold, 120, 4)) for fold in range(4)]


def test_counts_that_only_a_fold_itself_shows_do_not_reach_its_weights(slide, quick):
    """A gene that no target has is known to the weights by the rest of the slide alone."""
    fold = np.flatnonzero(slide.rank % 4 == 0)
    counts = slide.counts.toarray()
    counts[:, 7] = 0
    counts[fold, 7] = 50
    with_gene = AlignedSlide.of_counts(csr_matrix(counts), slide.neighbors, slide.measured)
    fit = cross_fit(network(), with_gene, 0)
    masked = MaskedGenes(np.array([7]))
    with torch.inference_mode():
        own, shipped = (
            encoded.centers(slide.neighbors[fold], masked).predict(torch.tensor([7])).mean()
            for encoded in (encode_folds(fit, with_gene), encode(network(), with_gene))
        )
    assert own <= shipped  # its targets say that the gene is absent


def test_every_spot_is_predicted_by_the_network_of_its_fold(slide, quick):
    made = network()
    fit = cross_fit(made, slide, 0)
    masked = MaskedGenes(np.arange(10))
    with torch.inference_mode():
        predicted = encode_folds(fit, slide).centers(slide.neighbors, masked).predict()
        for number, fold in enumerate(fit[0]):
            rows = np.flatnonzero(slide.rank % 4 == number)
            own = (
                ContextSlide(fold.network, slide, fold.stack)
                .centers(slide.neighbors[rows], masked)
                .predict()
            )
            torch.testing.assert_close(predicted[rows], own)
        shipped = encode(made, slide).centers(slide.neighbors, masked).predict()
    assert (predicted - shipped).abs().max() > 1e-4


def test_the_order_of_the_spots_makes_no_difference(slide, quick):
    order = np.random.default_rng(5).permutation(120)
    one, other = (cross_fit(network(), each, 0) for each in (slide, slide.subset(order)))
    for before, after in zip(one[0], other[0], strict=True):
        assert same(before.network.state_dict(), after.network.state_dict())


def test_each_section_is_fitted_by_itself(slide, quick):
    second = tissue(60, seed=4)
    both = AlignedSlide(
        counts=csr_matrix(np.vstack([slide.counts.toarray(), second.counts.toarray()])),
        neighbors=np.vstack([slide.neighbors, second.neighbors + 120]),
        measured=slide.measured,
        sections=np.repeat([0, 1], [120, 60]),
        library_size=np.concatenate([slide.library_size, second.library_size]),
        rank=np.concatenate([slide.rank, second.rank]),
    )
    fit = cross_fit(network(), both, 0)
    for folds, section in zip(fit, (slide, second), strict=True):
        [alone] = cross_fit(network(), section, 0)
        for fold, expected in zip(folds, alone, strict=True):
            assert same(fold.network.state_dict(), expected.network.state_dict())
    with torch.inference_mode():
        together = encode_folds(fit, both).centers(both.neighbors).predict()
        own = encode_folds(fit[1:], second).centers(second.neighbors).predict()
    torch.testing.assert_close(together[120:], own)


def test_a_step_on_a_large_slide_sees_patches_with_whole_neighborhoods():
    points = np.stack([np.arange(2500) // 50, np.arange(2500) % 50], axis=1) * 1.0
    neighbors, rng = nearest(points, 15), np.random.default_rng(0)
    members, inner = adaptation._region(neighbors, np.arange(2500), rng)
    assert 400 < len(members) <= 800
    assert len(inner) > 150
    assert np.isin(neighbors[inner], members).all()


@pytest.mark.parametrize("n_spots", [15, 30])
def test_tiny_slides_can_be_adapted_to(n_spots, quick):
    tiny = tissue(n_spots)
    fit = cross_fit(network(), tiny, 0)
    with torch.inference_mode():
        predicted = encode_folds(fit, tiny).centers(tiny.neighbors).predict()
    assert torch.isfinite(predicted).all()


def test_slides_without_counts_can_be_adapted_to(quick):
    empty = tissue(30)
    empty = replace(empty, counts=csr_matrix(empty.counts.shape, dtype=np.float32))
    fit = cross_fit(network(), empty, 0)
    assert all(torch.isfinite(v).all() for v in fit[0][0].network.state_dict().values())
