"""Genes that a whole slide lacks: predicted by factors of the genes that it has."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sagefm.nn.context.absent import AbsentGenes
from sagefm.pretrain.absent import SlideSample, fit_absent, usual_profile
from sagefm.stats.sums import row_sums

N_GENES, N_FACTORS = 150, 4
MISSING = np.arange(0, N_GENES, 3)


def draw(seed, n_spots=400, measured=None, shuffled=None):
    """Counts of spots that are mixtures of the same few programs on every slide."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    profile = fixed.dirichlet(np.full(N_GENES, 2.0))
    programs = fixed.normal(0, 0.5, (N_FACTORS, N_GENES))
    size = rng.gamma(8, 800 / 8, n_spots)
    counts = rng.poisson(size[:, None] * profile * np.exp(rng.normal(size=(n_spots, 4)) @ programs))
    if shuffled is not None:
        counts[:, shuffled] = rng.permutation(counts[:, shuffled])
    if measured is not None:
        counts[:, ~measured] = 0
    return csr_matrix(counts.astype(np.float32))


def sample(seed, patient, measured=None, **how):
    counts = draw(seed, measured=measured, **how)
    total = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    return SlideSample(
        patient, counts, total, np.ones(N_GENES, bool) if measured is None else measured
    )


def without(genes=MISSING):
    measured = np.ones(N_GENES, dtype=bool)
    measured[genes] = False
    return measured


def predicted(absent, counts, measured, genes=MISSING):
    counts = csr_matrix(counts.multiply(measured.astype(np.float32)))
    sizes = torch.from_numpy(row_sums(counts)).float()
    found = AbsentGenes(absent, counts, sizes, torch.from_numpy(measured), sizes)
    every = torch.arange(counts.shape[0])
    return found.predict(every, torch.from_numpy(genes)).numpy()


@pytest.fixture(scope="module")
def samples():
    """Four patients, one of whose slides lacks some genes."""
    lacking = without(np.arange(100, 120))
    return [sample(i, f"p{i}", lacking if i == 3 else None) for i in range(4)]


@pytest.fixture(scope="module")
def fitted(samples):
    return fit_absent(samples, 0)


def error(prediction, counts, genes=MISSING):
    return ((prediction - np.log1p(counts[:, genes].toarray())) ** 2).mean()


def test_it_is_as_good_as_ridge_that_knows_what_is_missing(samples, fitted):
    from sklearn.linear_model import RidgeCV

    counts, measured = draw(10), without()
    x = np.vstack([each.counts.toarray() for each in samples[:3]])
    ridge = RidgeCV(alphas=np.logspace(0, 4, 9)).fit(
        np.log1p(x[:, measured]), np.log1p(x[:, MISSING])
    )
    known = ridge.predict(np.log1p(counts[:, measured].toarray()))
    usual = np.log1p(x[:, MISSING]).mean(axis=0)
    assert error(known, counts) < 0.8 * error(usual, counts)
    assert error(predicted(fitted, counts, measured), counts) < 1.03 * error(known, counts)


def test_it_holds_for_few_genes_too(fitted):
    """What is missing at the time is not what was missing when it was fitted."""
    counts, measured = draw(11), np.arange(N_GENES) >= N_GENES - 40
    genes = np.arange(N_GENES - 40)
    prediction = predicted(fitted, counts, measured, genes)
    flat = np.log1p(counts[:, genes].toarray()).mean(axis=0)  # even the slide's own mean
    assert error(prediction, counts, genes) < 0.95 * error(flat, counts, genes)


def test_what_the_slide_lacks_has_no_say(fitted):
    counts = draw(12)
    changed = counts.tolil()
    changed[:, MISSING] = 50
    one, two = (predicted(fitted, csr_matrix(c), without()) for c in (counts, changed))
    assert np.array_equal(one, two)


def test_neither_the_order_of_genes_nor_of_spots_matters(fitted):
    counts, measured = draw(13), without()
    order, spots = np.random.default_rng(0).permutation(N_GENES), np.arange(399, -1, -1)
    turned = type(fitted).of(
        fitted.usual[order], fitted.loadings[order], fitted.coefficients[order]
    )
    at = np.argsort(order)[MISSING]
    other = predicted(turned, counts[spots][:, order], measured[order], at)
    np.testing.assert_allclose(other[spots], predicted(fitted, counts, measured), atol=1e-4)


def test_a_permuted_gene_is_not_predicted():
    """Where a gene has nothing to do with the others, its prediction hardly varies with them."""
    gene = int(MISSING[np.asarray(draw(0).sum(axis=0)).ravel()[MISSING].argmax()])
    fitted = fit_absent([sample(i, f"p{i}", shuffled=gene) for i in range(4)], 0)
    counts = draw(14, shuffled=gene)
    prediction = predicted(fitted, counts, without(), np.array([gene]))
    truth = np.log1p(counts[:, [gene]].toarray())
    assert abs(np.corrcoef(prediction[:, 0], truth[:, 0])[0, 1]) < 0.15
    assert error(prediction, counts, [gene]) > 0.97 * truth.var()


def test_the_same_seed_gives_the_same_numbers(samples, fitted):
    again = fit_absent(samples, 0)
    for name, values in fitted.state_dict().items():
        assert torch.equal(values, again.state_dict()[name])


def test_a_panel_does_not_inflate_the_usual_profile():
    """A slide that lacks most genes has the others in larger fractions of its counts."""
    whole, panel = sample(1, "a"), sample(2, "b", np.arange(N_GENES) < 30)
    truth = np.expm1(usual_profile([whole]))
    mixed = np.expm1(usual_profile([whole, panel]))
    assert np.abs(mixed[:30].sum() / truth[:30].sum() - 1) < 0.1


def test_one_slide_is_enough_to_fit():
    fitted = fit_absent([sample(1, "a", n_spots=30)], 0)
    assert all(torch.isfinite(values).all() for values in fitted.state_dict().values())
