"""Patches of tissue through the first layer, in either order of the product."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from sagefm.nn import Published, SparseRows, build

N_GENES = 50


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build("published", N_GENES, (16, 8, 8))


def patches(density, seed=0):
    """Two patches, as pooled by hand: rows of both, their operators, neighbors, what is hidden."""
    rng = np.random.default_rng(seed)
    parts, operators, neighbors, hidden, at = [], [], [], [], 0
    for n_spots, n_centers in ((30, 12), (20, 9)):
        x = csr_matrix(random_array((n_spots, N_GENES), density=density, rng=rng), dtype=np.float32)
        members = np.array([rng.permutation(n_spots)[:15] for _ in range(n_centers)])
        part = x[members[:, 0]].multiply(rng.random((n_centers, N_GENES)) < 0.3).tocsr()
        operator = np.zeros((n_centers, n_spots + n_centers), dtype=np.float32)
        operator[np.arange(n_centers)[:, None], members] = 1 / 15
        operator[np.arange(n_centers), n_spots + np.arange(n_centers)] = -1 / 15
        parts += [x, part]
        operators.append(torch.from_numpy(operator))
        neighbors.append(members + at)
        hidden.append(part)
        at += n_spots + n_centers
    return stacked(parts), operators, np.concatenate(neighbors), stacked(hidden)


def stacked(parts):
    from scipy.sparse import vstack

    return SparseRows.from_scipy(csr_matrix(vstack(parts), dtype=np.float32))


def mixed(network, rows, operators, way, monkeypatch):
    """`mix` in one of its two orders, which is asked for."""
    pace = {"dense": np.inf, "sparse": 0}[way]
    monkeypatch.setattr("sagefm.nn.published.network._DENSE_PACE", pace)
    done = []
    dense, times = SparseRows.dense, SparseRows.times
    monkeypatch.setattr(SparseRows, "dense", lambda *a: done.append("dense") or dense(*a))
    monkeypatch.setattr(SparseRows, "times", lambda *a: done.append("sparse") or times(*a))
    result = network.mix(rows, operators)
    monkeypatch.undo()
    assert done == [way]
    return result


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_both_orders_give_what_pooling_gives(network, density, monkeypatch):
    rows, operators, neighbors, hidden = patches(density)
    toward = torch.randn(21, 16)
    results = {}
    for way in ("dense", "sparse"):
        result = mixed(network, rows, operators, way, monkeypatch)
        results[way] = result, torch.autograd.grad(result, network.first, toward)[0]
    pooled = network.pool(network.project(rows), torch.from_numpy(neighbors), hidden)
    results["pool"] = pooled, torch.autograd.grad(pooled, network.first, toward)[0]
    assert float(pooled.detach().abs().max()) > 1e-3
    for way in ("dense", "sparse"):
        for ours, expected in zip(results[way], results["pool"], strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_order_with_less_work_is_taken(network, monkeypatch):
    done = []
    dense, times = SparseRows.dense, SparseRows.times
    monkeypatch.setattr(SparseRows, "dense", lambda *a: done.append("dense") or dense(*a))
    monkeypatch.setattr(SparseRows, "times", lambda *a: done.append("sparse") or times(*a))
    for density in (1.0, 0.02):
        rows, operators, *_ = patches(density)
        network.mix(rows, operators)
    assert done == ["dense", "sparse"]


def test_bfloat16_takes_the_dense_order_and_is_near(network):
    rows, operators, neighbors, hidden = patches(0.02)
    expected = network.pool(network.project(rows), torch.from_numpy(neighbors), hidden)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network.mix(rows, operators)
    assert rough.dtype == torch.bfloat16
    assert float((rough - expected).detach().norm() / expected.detach().norm()) < 0.02


def test_an_untrained_network_predicts_the_gene_mean_it_is_given(network):
    mean = torch.rand(N_GENES)
    network.start_from(mean)
    with torch.no_grad():
        predicted = network.decode(torch.zeros(3, 8))
    torch.testing.assert_close(predicted, mean.expand(3, N_GENES))


def test_networks_are_made_by_name():
    assert type(build("published", 3, (4, 5))) is Published
    assert build("published", 3, (4, 5)).first.shape == (3, 4)


def test_blocks_of_centers_are_embedded_as_all_of_them_are(model, slide, monkeypatch):
    whole = model.embed(slide)
    monkeypatch.setattr("sagefm.nn.published.encoded._BLOCK", 7)
    np.testing.assert_allclose(model.embed(slide), whole, rtol=1e-5, atol=1e-6)
