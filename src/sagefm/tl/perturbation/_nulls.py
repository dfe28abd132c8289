"""What an effect is held against: genes that are like the ligand but not known to act."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from sagefm._types import Floats, Positions

_LEAST_CONTROLS = 3


def matched(features: Floats, genes: Positions, candidates: Positions, n: int) -> Positions:
    """Find for each gene the candidates that are most like it.

    Parameters
    ----------
    features
        All genes × features, such as the mean and the share of spots. Ranks are compared: no scale
        has a say.
    genes, candidates
        Positions; a gene is not its own match.
    n
        How many.

    Returns
    -------
    Genes × `n` positions (fewer columns where there are fewer candidates), the nearest first.
    """
    both = np.concatenate([genes, candidates])
    ranks = rankdata(features[both], axis=0)
    n = min(n, len(candidates))
    _, at = cKDTree(ranks[len(genes) :]).query(ranks[: len(genes)], k=np.arange(1, n + 1))
    return candidates[at]


def alike(expression: csr_matrix, genes: Positions, candidates: Positions, n: int) -> Positions:
    """Find for each gene the candidates that correlate with it most over the spots: genes × n."""
    own = expression[:, genes].toarray().astype(np.float64)
    own -= own.mean(axis=0)
    others = expression[:, candidates].tocsc().astype(np.float64)
    mean = np.asarray(others.mean(axis=0)).ravel()
    square = np.asarray(others.multiply(others).mean(axis=0)).ravel()
    variance = square - mean**2
    sd = np.sqrt(np.where(variance > 1e-10 * square, variance, 0))  # else it is rounding
    # The mean of the others falls out, for their partner is centered.
    shared = np.asarray((others.T @ own).T) / len(own)
    r = np.divide(shared, sd, out=np.full_like(shared, -np.inf), where=sd > 0)
    return candidates[np.argsort(-r, axis=1, kind="stable")[:, : min(n, len(candidates))]]


@dataclass(frozen=True)
class Standing:
    """Where effects stand among those of other genes on the same target."""

    z: Floats
    """Per pair: distance from the mean of the null, in its standard deviations."""
    null: Floats
    """The same of every gene of every null, left out of its own null; sorted sizes."""

    @classmethod
    def of(cls, effect: Floats, null: Floats) -> Self:
        """Standardize effects (pairs) by nulls (pairs × genes; missing values do not count)."""
        known = ~np.isnan(null)
        n = known.sum(axis=1, keepdims=True)
        filled = np.where(known, null, 0.0)
        total, square = filled.sum(axis=1, keepdims=True), (filled**2).sum(axis=1, keepdims=True)
        z = _standardized(effect[:, None], n, total, square)[:, 0]
        one_out = _standardized(null, n - 1, total - filled, square - filled**2)
        return cls(z, np.sort(np.abs(one_out[~np.isnan(one_out)])))

    def p(self) -> Floats:
        """Share of the nulls of all pairs that stand as far from their center, to either side.

        Nulls of all pairs together, since one pair has too few for the small values that many
        tests need.
        """
        return upper_tail(np.abs(self.z), self.null)


@dataclass(frozen=True)
class Scale:
    """How far genes move others in general: what is particular to a pair is beyond that.

    Some genes move everything (they stand for depth, or come in patches, so that they go with much
    by accident). Without this, they would stand out on every target.
    """

    center: Floats
    """Per target and control, the mean effect of all screened genes."""
    width: Floats
    """The standard deviation of these effects."""
    shift: Floats
    """Per screened gene, the mean of its standardized effects on the controls."""
    reach: Floats
    """Their standard deviation."""

    @classmethod
    def of(cls, effects: Floats, genes: Positions, controls: Positions) -> Self:
        """Measure it on effects of `genes` on targets and, in the last columns, `controls`."""
        center = np.nanmean(effects, axis=0)
        width = np.nanstd(effects, axis=0)
        width[~(width > 1e-6 * np.abs(effects).max(initial=0, where=~np.isnan(effects)))] = np.inf
        n_targets = effects.shape[1] - len(controls)
        moved = np.isfinite(width[n_targets:])
        standardized = ((effects - center) / width)[:, n_targets:]
        others = np.where(genes[:, None] == controls, np.nan, standardized)[:, moved]
        if others.shape[1] < _LEAST_CONTROLS:
            return cls(center, width, np.zeros(len(effects)), np.ones(len(effects)))
        reach = np.nanstd(others, axis=1)
        return cls(center, width, np.nanmean(others, axis=1), np.where(reach > 0, reach, 1.0))

    def particular(self, effects: Floats) -> Floats:
        """Leave what a gene does to genes in general (screened × targets and controls)."""
        standardized = (effects - self.center) / self.width
        particular = (standardized - self.shift[:, None]) / self.reach[:, None]
        return np.where(np.isfinite(self.width), particular, 0.0)  # nothing moves it: nobody can

    def effect(self, values: Floats, gene: Positions, target: Positions) -> Floats:
        """Say what effect of `gene` on `target` would be as particular as `values`."""
        # A target that nothing moves has no width: then no effect is what there would be.
        width = np.where(np.isfinite(self.width), self.width, 0.0)[target]
        return (values * self.reach[gene] + self.shift[gene]) * width + self.center[target]


def upper_tail(size: Floats, null: Floats) -> Floats:
    """Get the permutation p of sizes among sorted sizes of a null; NaN stays."""
    # To rounding: what is equal counts as reached.
    below = np.searchsorted(null, size * (1 - 1e-9), side="left")
    p = (1 + len(null) - below) / (1 + len(null))
    return np.where(np.isnan(size), np.nan, p)


def _standardized(values: Floats, n: Floats, total: Floats, square: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        variance = square / n - mean**2
    varied = variance > 1e-12 * np.maximum(square / np.maximum(n, 1), 1e-30)
    scale = np.sqrt(np.where(varied, variance, 1.0))
    # Where nothing of the null moves there is nothing to stand out from.
    return np.where(np.isnan(values) | (n < 2), np.nan, np.where(varied, values - mean, 0) / scale)
