"""Plant a rare population in a slide."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sagefm._errors import InputError
from sagefm._keys import PLANTED
from sagefm.pp.counts import coordinates, counts

if TYPE_CHECKING:
    from anndata import AnnData

Rng = np.random.Generator

_COMMON = (0.1, 1.0)
"""Range of the mean counts per spot of genes that can be markers."""
_DISPERSION = 0.2
"""Of the added counts: variance = mean + 0.2 × mean², as in simulated slides."""


def plant(
    slide: "AnnData",
    share: float = 0.01,
    *,
    n_genes: int = 40,
    fold: float = 10.0,
    mixture: float = 0.5,
    scattered: bool = True,
    seed: int = 0,
) -> "AnnData":
    """Copy a slide and plant a rare population in it.

    In a planted spot, a fraction `mixture` of the counts is of rare cells, which express each
    marker `fold` times as much as the average of the slide, and all other genes as the spot does.
    So `mixture` × (`fold` - 1) × (fraction of the gene in the counts of the slide) × (library size
    of the spot) counts of a marker are added on average, negative binomial. Counts are then removed
    at random over all genes until the library size is as before.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``, simulated or real. It is not changed.
    share
        Fraction of the spots that are planted, above 0 and at most 0.5; at least one spot.
    n_genes
        Number of markers, drawn among the genes with 0.1 to 1 counts per spot on average.
    fold
        Fold change of the markers in rare cells, more than 1.
    mixture
        Fraction of rare cells in a planted spot, above 0 and at most 1.
    scattered
        Whether to plant single spots anywhere, or a spot and those nearest to it.
    seed
        Seed of spots, markers and counts.

    Returns
    -------
    A copy with raw counts in ``X``; ``obs["planted"]``: whether a spot was planted;
    ``uns["planted"]``: markers (``"genes"``) and the settings.

    Raises
    ------
    InputError
        A number is out of its range, there are too few such genes, or the slide has no raw counts
        or coordinates.
    """
    _check(share, n_genes, fold, mixture)
    raw = counts(slide)
    rng = np.random.default_rng([seed, 2])
    mean = np.asarray(raw.matrix.mean(axis=0), dtype=np.float64).ravel()
    candidates = np.flatnonzero((mean >= _COMMON[0]) & (mean <= _COMMON[1]))
    if len(candidates) < n_genes:
        raise InputError(
            f"n_genes={n_genes}: only {len(candidates)} genes have {_COMMON[0]:g} to "
            f"{_COMMON[1]:g} counts per spot on average; give a smaller number"
        )
    genes = np.sort(rng.choice(candidates, n_genes, replace=False))
    spots = _choose(coordinates(slide), max(1, round(share * slide.n_obs)), scattered, rng)
    rows = raw.matrix[spots].toarray().astype(np.int64)
    library_size = rows.sum(axis=1)
    added = mixture * (fold - 1) * np.outer(library_size, mean[genes] / max(mean.sum(), 1e-12))
    rows[:, genes] += rng.poisson(rng.gamma(1 / _DISPERSION, _DISPERSION * added))
    for row, size in zip(rows, library_size, strict=True):
        row[:] = rng.multivariate_hypergeometric(row, size, method="marginals")
    planted = slide.copy()
    planted.X = _replaced(raw.matrix, spots, rows)
    chosen = np.isin(np.arange(slide.n_obs), spots)
    planted.obs[PLANTED] = chosen
    planted.uns[PLANTED] = {
        "genes": raw.var.index[genes].astype(str).to_numpy(dtype=object),
        "share": share, "fold": fold, "mixture": mixture, "scattered": scattered, "seed": seed,
    }  # fmt: skip
    return planted


def _check(share: float, n_genes: int, fold: float, mixture: float) -> None:
    for name, value, valid, allowed in (
        ("share", share, 0 < share <= 0.5, "above 0 and at most 0.5"),
        ("n_genes", n_genes, n_genes >= 1, "of 1 or more"),
        ("fold", fold, 1 < fold <= 1e4, "above 1 and at most 10000"),
        ("mixture", mixture, 0 < mixture <= 1, "above 0 and at most 1"),
    ):
        if not valid:
            raise InputError(f"{name}={value}: give a number {allowed}")


def _choose(
    places: NDArray[np.float64], n_spots: int, scattered: bool, rng: Rng
) -> NDArray[np.int64]:
    """Choose spots anywhere, or a spot and those nearest to it."""
    if scattered:
        return np.sort(rng.choice(len(places), n_spots, replace=False))
    middle = places[rng.integers(len(places))]
    return np.sort(np.argsort(np.hypot(*(places - middle).T), kind="stable")[:n_spots])


def _replaced(
    matrix: sparse.csr_matrix, spots: NDArray[np.int64], rows: NDArray[np.int64]
) -> sparse.csr_matrix:
    """Replace rows of counts."""
    order = np.arange(matrix.shape[0])
    order[spots] = matrix.shape[0] + np.arange(len(spots))
    both = sparse.vstack([matrix, sparse.csr_matrix(rows.astype(np.float32))], format="csr")
    return sparse.csr_matrix(both[order])
