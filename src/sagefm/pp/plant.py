"""Slides with a rare population whose spots are known."""

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
"""Mean counts per spot of genes that can be markers: seldom seen, but seen."""
_DISPERSION = 0.2
"""Of the counts that are added: variance = mean + 0.2 × mean², as simulated slides have it."""


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

    In a planted spot the share `mixture` of the counts comes from rare cells, which express each
    of their markers `fold` times as much as the slide does on average, and all else as the spot
    does: so a marker gets `mixture` × (`fold` - 1) × (its share of the counts of the slide) ×
    (depth of the spot) counts more on average, negative binomial. Counts are then taken out at
    random, without regard to genes, until the spot has as many as before: its depth does not give
    it away.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``, simulated or real. It is not changed.
    share
        Of the spots that are planted, above 0 and at most 0.5; one spot at least.
    n_genes
        Markers, drawn among the genes with 0.1 to 1 counts per spot on average.
    fold
        How many times as much rare cells express a marker; more than 1.
    mixture
        Share of a planted spot that is rare cells; above 0 and at most 1.
    scattered
        Single spots anywhere on the slide, or one nest: a spot and those nearest to it.
    seed
        Decides the spots, the markers and the counts.

    Returns
    -------
    A copy with raw counts in ``X``; ``obs["planted"]``: whether a spot is of the population;
    ``uns["planted"]``: markers (``"genes"``) and the settings.

    Raises
    ------
    InputError
        A number is out of its range, there are too few such genes, or the slide has no raw counts
        or coordinates.
    """
    _check(share, n_genes, fold, mixture)
    found = counts(slide)
    rng = np.random.default_rng([seed, 2])
    mean = np.asarray(found.matrix.mean(axis=0), dtype=np.float64).ravel()
    candidates = np.flatnonzero((mean >= _COMMON[0]) & (mean <= _COMMON[1]))
    if len(candidates) < n_genes:
        raise InputError(
            f"n_genes={n_genes}: only {len(candidates)} genes have {_COMMON[0]:g} to "
            f"{_COMMON[1]:g} counts per spot on average; ask for fewer"
        )
    genes = np.sort(rng.choice(candidates, n_genes, replace=False))
    spots = _choose(coordinates(slide), max(1, round(share * slide.n_obs)), scattered, rng)
    rows = found.matrix[spots].toarray().astype(np.int64)
    depth = rows.sum(axis=1)
    more = mixture * (fold - 1) * np.outer(depth, mean[genes] / max(mean.sum(), 1e-12))
    rows[:, genes] += rng.poisson(rng.gamma(1 / _DISPERSION, _DISPERSION * more))
    for row, wanted in zip(rows, depth, strict=True):
        row[:] = rng.multivariate_hypergeometric(row, wanted, method="marginals")
    planted = slide.copy()
    planted.X = _replaced(found.matrix, spots, rows)
    chosen = np.isin(np.arange(slide.n_obs), spots)
    planted.obs[PLANTED] = chosen
    planted.uns[PLANTED] = {
        "genes": found.var.index[genes].astype(str).to_numpy(dtype=object),
        "share": share, "fold": fold, "mixture": mixture, "scattered": scattered, "seed": seed,
    }  # fmt: skip
    return planted


def _check(share: float, n_genes: int, fold: float, mixture: float) -> None:
    for name, value, good, asked in (
        ("share", share, 0 < share <= 0.5, "above 0 and at most 0.5"),
        ("n_genes", n_genes, n_genes >= 1, "of 1 or more"),
        ("fold", fold, 1 < fold <= 1e4, "above 1 and at most 10000"),
        ("mixture", mixture, 0 < mixture <= 1, "above 0 and at most 1"),
    ):
        if not good:
            raise InputError(f"{name}={value}: give a number {asked}")


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
    """Put rows of counts in the place of others."""
    order = np.arange(matrix.shape[0])
    order[spots] = matrix.shape[0] + np.arange(len(spots))
    both = sparse.vstack([matrix, sparse.csr_matrix(rows.astype(np.float32))], format="csr")
    return sparse.csr_matrix(both[order])
