"""Find genes like other genes: of the same expression, or coexpressed with them."""

import numpy as np
from scipy.sparse import csc_matrix
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from sagefm._types import Floats, Positions


def match_genes(
    features: Floats, genes: Positions, candidates: Positions, n: int, most: int | None = None
) -> Positions:
    """Find for each gene the nearest candidates.

    Parameters
    ----------
    features
        All genes × features, such as the mean and the fraction of spots. Only their ranks count.
    genes, candidates
        Positions; a gene is not its own match.
    n
        How many.
    most
        How many candidates may occur in the result together, if not all (but at least `n`): those
        that are nearest to any gene, so that many genes share them.

    Returns
    -------
    Genes × `n` positions (fewer columns where there are fewer candidates), the nearest first.
    """
    ranks = rankdata(features[np.concatenate([genes, candidates])], axis=0)
    own, others = ranks[: len(genes)], ranks[len(genes) :]
    n = min(n, len(candidates))
    at = np.asarray(cKDTree(others).query(own, k=np.arange(1, n + 1))[1], dtype=np.int64)
    if most is not None and len(np.unique(at)) > max(most, n):
        pool = _shared(at, max(most, n))
        at = pool[cKDTree(others[pool]).query(own, k=np.arange(1, n + 1))[1]]
    return np.asarray(candidates[at])


def _shared(nearest: Positions, most: int) -> Positions:
    """Choose the candidates that are nearest to any gene, at most so many; sorted."""
    every, first = np.unique(nearest.T.ravel(), return_index=True)
    return np.sort(every[np.argsort(first, kind="stable")[:most]])


def coexpressed_genes(
    log1p: csc_matrix, genes: Positions, candidates: Positions, n: int
) -> Positions:
    """Find for each gene the candidates that correlate with it most over the spots: genes × n."""
    x = log1p[:, genes].toarray().astype(np.float64)
    x -= x.mean(axis=0)
    others = log1p[:, candidates].astype(np.float64)
    mean = np.asarray(others.mean(axis=0)).ravel()
    square = np.asarray(others.multiply(others).mean(axis=0)).ravel()
    variance = square - mean**2
    sd = np.sqrt(np.where(variance > 1e-10 * square, variance, 0))  # less is rounding
    # The mean of the candidates cancels, since x is centered.
    shared = np.asarray((others.T @ x).T) / len(x)
    r = np.divide(shared, sd, out=np.full_like(shared, -np.inf), where=sd > 0)
    return candidates[np.argsort(-r, axis=1, kind="stable")[:, : min(n, len(candidates))]]
