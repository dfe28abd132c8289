"""What an untrained network is told of the training spots."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sagefm import InputError
from sagefm.model import Config, SageFM
from sagefm.nn import SparseRows
from sagefm.pp.sections import sections_of
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.data import Split
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.recipe import NetworkTable
from sagefm.pretrain.start import principal_axes, require_axes, residuals_of, start
from sagefm.stats.poisson import log1p_mean

N_GENES = 50


@pytest.fixture(scope="module")
def split():
    """Two training slides, of which the second lacks genes, and a part of a third."""
    genes = simulate(15).var_names[:N_GENES]
    slides = {f"s{i}": simulate(40 + 30 * i, genes=genes, seed=i, slide=f"s{i}") for i in range(3)}
    slides["s1"] = slides["s1"][:, :30].copy()
    source = Memory(sections_of(slides), Vocabulary(tuple(genes)), 15)
    return Split(source, {"s0": np.arange(40), "s1": np.arange(70), "s2": np.arange(60, 90)}, {})


def a_network(width, split):
    config = Config("context", (width, 24, 24, 12))
    return SageFM.new(split.source.vocabulary, config, seed=0).network


def dense(split, slide):
    spots = split.training[slide]
    return split.source.read(slide, 0, 40).log1p[spots].toarray().astype(np.float64)


def test_residuals_are_those_of_poisson_draws_from_the_slide(split):
    """Of all training spots, where there are few, and of no others."""
    found, _ = residuals_of(split, seed=0)
    assert found.shape == (40 + 70 + 30, N_GENES)
    at = 0
    for slide, spots in split.training.items():
        logs = dense(split, slide)
        counts = np.expm1(logs)
        rates = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
        expected = logs - log1p_mean(rates)
        ours = found[at : at + len(spots)].numpy()
        at += len(spots)
        # The same spots in another order, the table interpolated.
        order, other = np.argsort(ours.sum(axis=1)), np.argsort(expected.sum(axis=1))
        np.testing.assert_allclose(ours[order], expected[other], atol=2e-3)


def test_the_usual_profile_is_that_of_the_slides_that_measured_a_gene(split):
    _, usual = residuals_of(split, seed=0)
    profiles = []
    for slide in split.training:
        total = np.expm1(dense(split, slide)).sum(axis=0)
        profiles.append(np.log1p(1e4 * total / total.sum()))
    expected = np.mean(profiles, axis=0)
    expected[30:] = np.mean([profiles[0], profiles[2]], axis=0)[30:]  # s1 lacks them
    np.testing.assert_allclose(usual, expected, rtol=1e-4)


def test_of_many_spots_a_sample_of_each_slide_is_looked_at(split, monkeypatch):
    monkeypatch.setattr("sagefm.pretrain.start._SPOTS", 75)
    whole, usual = residuals_of(split, seed=0)
    assert len(whole) == 3 * 25
    assert torch.equal(residuals_of(split, seed=0)[0], whole)
    assert not torch.equal(residuals_of(split, seed=1)[0], whole)
    assert torch.equal(residuals_of(split, seed=1)[1], usual)
    monkeypatch.setattr("sagefm.pretrain.start._SPOTS", 6)
    assert len(residuals_of(split, seed=0)[0]) == 3 * 20


def test_principal_axes_are_those_of_the_whole_decomposition():
    chance = np.random.default_rng(0)
    x = chance.normal(size=(200, 8)) * 3.0 ** -np.arange(8) @ chance.normal(size=(8, 40))
    axes, strength = principal_axes(torch.from_numpy(x).float(), 4, seed=0)
    _, values, expected = np.linalg.svd(0.5 * x, full_matrices=False)
    np.testing.assert_allclose(strength, values[:4] / np.sqrt(200), rtol=1e-3)
    np.testing.assert_allclose(np.abs(axes.numpy().T @ expected[:4].T), np.eye(4), atol=1e-3)


def test_axes_depend_on_the_seed_alone_and_no_chance_is_used_up():
    x = torch.randn(60, 50)
    before = torch.get_rng_state()
    one = principal_axes(x, 10, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(one[0], principal_axes(x, 10, seed=0)[0])


def test_empty_axes_do_not_blow_weights_up():
    """Fewer directions than axes: what has no strength is not divided by it."""
    x = torch.outer(torch.randn(60), torch.randn(50))
    _, strength = principal_axes(x, 5, seed=0)
    assert float(strength.min()) >= 0.0099 * float(strength.max()) > 0


@pytest.mark.parametrize(("n_spots", "width"), [(140, 51), (20, 21)])
def test_a_network_wider_than_its_data_is_refused(split, n_spots, width):
    """It alone: one that just fits can begin, and the published network is never too wide."""
    training = {"s0": np.arange(20)} if n_spots == 20 else split.training
    some = Split(split.source, training, {})
    message = rf"network\.widths begins with {width}: .* 50 genes of {n_spots} training spots"
    with pytest.raises(InputError, match=message):
        require_axes(some, NetworkTable(name="context", widths=[width, 8, 8]))
    require_axes(some, NetworkTable(name="context", widths=[width - 1, 8, 8]))
    require_axes(some, NetworkTable(widths=[width, 8, 8]))
    start(a_network(width - 1, some), some, torch.zeros(N_GENES), seed=0)


def test_a_started_network_finds_spots_that_are_alike(split):
    """Its gene embeddings tell spots apart better than those it is born with."""
    network = a_network(16, split)
    born = network.first.detach().clone()
    start(network, split, torch.zeros(N_GENES), seed=0)
    assert float(network.usual.abs().sum()) > 0
    residuals, _ = residuals_of(split, seed=0)
    rows = SparseRows.from_scipy(csr_matrix(residuals.numpy()))
    kept = [
        float((rows.times(torch.linalg.qr(weights)[0])).square().sum() / residuals.square().sum())
        for weights in (network.first.detach(), born)
    ]
    assert kept[0] > 1.2 * kept[1]
