"""What a slide itself says of pairs of genes."""

import numpy as np
import pytest

from sagefm import SageFM
from sagefm.pp import Vocabulary
from sagefm.pp.simulate import simulate
from sagefm.tl.perturbation._coexpression import (
    COMPONENTS,
    NEIGHBORS,
    SAME_SPOT,
    Coexpression,
    combine,
)


@pytest.fixture(scope="module")
def prepared():
    slide = simulate(400, seed=4)
    return SageFM.new(Vocabulary(list(slide.var_names)), seed=0).prepare(slide)


def partial(a, b, covariates):
    """The textbook: correlate what least squares leave."""
    left = [v - covariates @ np.linalg.lstsq(covariates, v, rcond=None)[0] for v in (a, b)]
    return np.corrcoef(left)[0, 1]


def test_correlations_are_those_of_residuals(prepared):
    counts = prepared.counts.toarray().astype(np.float64)
    size = counts.sum(axis=1)
    normalized = np.log1p(counts * (np.median(size) / size)[:, None])
    around = normalized[prepared.neighbors[:, 1:]].mean(axis=1)
    log_size = np.log(size)
    held = np.column_stack(
        [np.ones(len(size)), log_size, log_size[prepared.neighbors[:, 1:]].mean(axis=1)]
    )
    genes = np.argsort(-counts.sum(axis=0))[:6]
    found = Coexpression.of(prepared).correlate(genes[:3], genes[3:])
    degrees = len(size) - 3 - 2
    for i, a in enumerate(genes[:3]):
        for j, b in enumerate(genes[3:]):
            same = partial(normalized[:, a], normalized[:, b], held)
            near = partial(around[:, a], normalized[:, b], held)
            assert found[SAME_SPOT][i, j] == pytest.approx(
                np.arctanh(same) * degrees**0.5, abs=0.01
            )
            assert found[NEIGHBORS][i, j] == pytest.approx(
                np.arctanh(near) * degrees**0.5, abs=0.01
            )


def test_random_pairs_are_standard_normal_given_components(prepared):
    seen = np.flatnonzero(prepared.counts.getnnz(axis=0) > 40)
    drawn = np.random.default_rng(0).permutation(seen)[:200]
    found = Coexpression.of(prepared).correlate(drawn[:100], drawn[100:])
    z = found[COMPONENTS]
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1, abs=0.12)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.025)
    # Without them the domains of the tissue make genes agree.
    assert found[NEIGHBORS].std() > 1.1 * z.std()


def test_a_gene_without_counts_says_nothing(prepared):
    silent = np.flatnonzero(np.asarray(prepared.counts.sum(axis=0)).ravel() == 0)
    others = np.argsort(-np.asarray(prepared.counts.sum(axis=0)).ravel())[:2]
    if len(silent):
        found = Coexpression.of(prepared).correlate(silent[:1], others)
        assert all(np.isnan(z).all() for z in found.values())


def test_slides_add_up():
    np.testing.assert_allclose(
        combine([np.array([2.0, np.nan, np.nan]), np.array([2.0, 1.0, np.nan])]),
        [4 / 2**0.5, 1.0, np.nan],
    )
