"""Components of sparse matrices, against dense ones."""

import numpy as np
from scipy.sparse import csr_matrix, identity, random

from sagefm.stats.components import project, scores, shared_axes


def parts(seed=0):
    rng = np.random.default_rng(seed)
    structure = rng.normal(size=(5, 40)) * 3
    matrices, operators = [], []
    for n in (90, 60):
        dense = rng.normal(size=(n, 5)) @ structure + rng.normal(size=(n, 40)) + rng.normal(size=40)
        matrices.append(csr_matrix(dense.astype(np.float32)))
        mixing = random(n, n, 0.1, random_state=seed) + identity(n)
        operators.append(csr_matrix(mixing / mixing.sum(axis=1), dtype=np.float32))
    return matrices, operators


def test_axes_are_those_of_the_dense_averaged_centered_matrix():
    matrices, operators = parts()
    averaged = [(o @ m).toarray() for m, o in zip(matrices, operators, strict=True)]
    dense = np.concatenate([one - one.mean(axis=0) for one in averaged])
    wanted = np.linalg.svd(dense)[2][:5].T
    found = shared_axes(matrices, operators, 5)
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)
    overlap = np.linalg.svd(wanted.T @ found, compute_uv=False)
    assert overlap.min() > 0.999


def test_blocks_are_one_product():
    (matrix, _), _ = parts()
    axes = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    tall = csr_matrix(np.tile(matrix.toarray(), (8, 1)))
    np.testing.assert_allclose(project(tall, axes), tall @ axes, rtol=1e-4, atol=1e-4)


def test_scores_keep_distances():
    values = np.random.default_rng(2).normal(size=(30, 6)) + 5
    found = scores(values, 6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    wanted = np.linalg.norm(values[3] - values[8])
    np.testing.assert_allclose(np.linalg.norm(found[3] - found[8]), wanted)
    assert scores(values, 2).shape == (30, 2)


def test_no_more_axes_than_there_are():
    matrices, _ = parts()
    assert shared_axes([matrices[0][:4]], [identity(4, format="csr")], 10).shape == (40, 3)
