"""The test of a set: calibrated, and sharp enough."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sagefm.tl.perturbation._evidence import beyond, power
from sagefm.tl.perturbation._set_test import GeneSwaps, set_test

N_LIGANDS, N_TARGETS, N_MATCHED, N_MATCHED_TARGETS = 40, 30, 20, 10


def swaps_of(source, target):
    """Every gene has matched genes of its own."""
    rows, columns = N_LIGANDS * (1 + N_MATCHED), N_TARGETS * (1 + N_MATCHED_TARGETS)
    return GeneSwaps(
        source,
        target,
        np.arange(N_LIGANDS),
        np.arange(N_TARGETS),
        np.arange(N_LIGANDS, rows).reshape(N_LIGANDS, N_MATCHED),
        np.arange(N_TARGETS, columns).reshape(N_TARGETS, N_MATCHED_TARGETS),
    ), (rows, columns)


def a_set(rng):
    """Some ligands have many targets, and no pair stands twice."""
    chance = rng.dirichlet(np.full(N_LIGANDS, 0.7), size=N_TARGETS).T
    paired = rng.random((N_LIGANDS, N_TARGETS)) < 3 * chance
    paired[np.arange(N_LIGANDS), rng.integers(N_TARGETS, size=N_LIGANDS)] = True
    return swaps_of(*np.nonzero(paired))


def scores_of(rng, shape):
    """Genes differ in what they do to all others, and targets are alike in groups."""
    groups = rng.normal(size=(shape[0], 6))[:, rng.integers(6, size=shape[1])]
    return groups + rng.normal(size=shape) + rng.normal(size=shape[1])


def test_p_is_uniform_where_pairs_mean_nothing():
    found = {"p": [], "p_ligands": [], "p_targets": []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        swaps, shape = a_set(rng)
        result = set_test(scores_of(rng, shape), swaps, seed)
        for name, values in found.items():
            values.append(getattr(result, name))
    for name, p in found.items():
        assert stats.kstest(p, "uniform").pvalue > 0.05, name


def test_what_ligands_do_to_all_targets_is_no_finding():
    """Ligands and receptors share compartments: so shuffled pairs stand above matched genes."""
    p, z, auroc, expected = [], [], [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        swaps, shape = a_set(rng)
        scores = scores_of(rng, shape)
        scores[:N_LIGANDS, :N_TARGETS] += 1.0
        result = set_test(scores, swaps, seed)
        p.append(result.p)
        z.append(result.z)
        auroc.append(result.auroc)
        expected.append(result.auroc_shuffled)
    assert abs(np.mean(z)) < 0.25
    assert np.mean(np.array(p) < 0.05) < 0.12
    assert np.mean(auroc) > 0.65
    assert np.mean(expected) == pytest.approx(np.mean(auroc), abs=0.02)


def test_pairs_that_stand_out_are_found():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        swaps, shape = a_set(rng)
        scores = scores_of(rng, shape)
        scores[swaps.source, swaps.target] += 1.5
        result = set_test(scores, swaps, seed)
        assert result.z > 3
        assert max(result.p, result.p_ligands, result.p_targets) < 0.01
        assert result.low > 0.5
        assert result.low < result.auroc < result.high
        assert set_test(-scores, swaps, seed).p > 0.9


def test_one_pair_does_not_make_a_set():
    rng = np.random.default_rng(0)
    swaps, shape = a_set(rng)
    scores = scores_of(rng, shape)
    scores[swaps.source[0], swaps.target[0]] = 1e6
    assert set_test(scores, swaps).z < 2


def test_auroc_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    swaps, shape = a_set(rng)
    scores = np.round(scores_of(rng, shape), 1)  # with ties
    chances = [
        np.mean([(scores[i, t] > scores[m, t]) + (scores[i, t] == scores[m, t]) / 2
                 for m in swaps.matched_sources[i]])
        for i, t in zip(swaps.source, swaps.target, strict=True)
    ]  # fmt: skip
    assert set_test(scores, swaps).auroc == pytest.approx(np.mean(chances))


def test_scores_that_do_not_vary_say_nothing():
    swaps, shape = a_set(np.random.default_rng(0))
    result = set_test(np.zeros(shape), swaps)
    assert (result.z, result.auroc, result.p) == (0, 0.5, 1)


@pytest.mark.parametrize("target", [[0, 1], [0, 0, 0]])
def test_two_ligands_and_one_target_are_no_set(target):
    swaps, shape = swaps_of(np.arange(len(target)), np.array(target))
    scores = scores_of(np.random.default_rng(0), shape)
    result = set_test(scores, swaps.of(np.arange(len(target))))
    assert (result.n_pairs, result.n_ligands) == (len(target), len(target))
    assert 0 <= result.auroc <= 1
    assert np.isnan([result.low, result.high, result.z, *result[-3:]]).all()


def test_some_pairs_are_those_pairs():
    rng = np.random.default_rng(5)
    swaps, shape = a_set(rng)
    scores, some = scores_of(rng, shape), np.arange(0, len(swaps.source), 3)
    kept = replace(swaps, source=swaps.source[some], target=swaps.target[some])
    a, b = set_test(scores, swaps.of(some)), set_test(scores, kept.of(np.arange(len(some))))
    assert a == b
    assert a.n_pairs == len(some)


def test_power_is_that_of_the_measured_sets():
    assert power(150) == pytest.approx(3, abs=0.2)
    assert power(350) == pytest.approx(5, abs=0.4)
    assert power(59) < 2


def test_beyond_is_uncorrelated_with_what_was_subtracted():
    rng = np.random.default_rng(0)
    slide = [rng.normal(size=(50, 40)) for _ in range(2)]
    own = rng.normal(size=(50, 40))
    left = beyond(3 * slide[0] - slide[1] + own, slide)
    for one in slide:
        assert abs(np.corrcoef(left.ravel(), one.ravel())[0, 1]) < 0.05
    assert np.corrcoef(left.ravel(), own.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("n_matched", [3, 5])
def test_few_matched_genes_are_enough_for_p(n_matched):
    """A source and its matched genes are treated alike, however few they are."""
    p, z = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        swaps, shape = a_set(rng)
        few = replace(swaps, matched_sources=swaps.matched_sources[:, :n_matched])
        result = set_test(scores_of(rng, shape), few, seed)
        p.append(result.p)
        z.append(result.z)
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert np.std(z) < 1.15
