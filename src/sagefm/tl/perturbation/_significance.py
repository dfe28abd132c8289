"""Test effects against those of other genes: effect → null → z → p → q.

For a gene g (a ligand, or a gene that is raised in its place) and a target t::

    effect(g, t) = mean over spots of the predicted t at the highest level of g minus at the lowest
    s(g, t) = (effect(g, t) - mean over genes of effect(·, t)) / their sd
    x(g, t) = (s(g, t) - mean over controls c of s(g, c)) / their sd      (the specific effect)
    null    = x(m, t) for the genes m that are matched to the ligand
    z       = (x(ligand, t) - mean of the null) / its sd
    p       = (1 + number of |z of a null gene| >= |z|) / (1 + number of null genes), where each
              null gene is left out of its own null and the null genes of all pairs are counted
    q       = Benjamini-Hochberg of p over the pairs

z, p and q have no unit; effects are log1p counts.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Floats, Positions
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.perturbation._plan import Direction

_LEAST_CONTROLS = 3


@dataclass(frozen=True)
class NullScores:
    """Effects standardized by those of other genes on the same target."""

    z: Floats
    """Per pair: distance from the mean of the null, in its standard deviations."""
    null: Floats
    """Sorted absolute z of every gene of every null, each left out of its own null."""

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
        """Compute two-sided p: the fraction of null genes with at least that absolute z.

        The nulls of all pairs are pooled, since one pair has too few genes for the small p that
        many tests need.
        """
        return upper_tail(np.abs(self.z), self.null)


@dataclass(frozen=True)
class GeneEffects:
    """Effects of genes in general, which are removed to get what is specific to a pair.

    Some genes change every prediction: they are a proxy of library size, or occur in patches and
    therefore correlate with many genes by chance. Uncorrected, they are significant everywhere.
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
        """Estimate them from effects of `genes` on targets and, in the last columns, `controls`."""
        center = np.nanmean(effects, axis=0)
        width = np.nanstd(effects, axis=0)
        width[~(width > 1e-6 * np.abs(effects).max(initial=0, where=~np.isnan(effects)))] = np.inf
        n_targets = effects.shape[1] - len(controls)
        moved = np.isfinite(width[n_targets:])
        standardized = ((effects - center) / width)[:, n_targets:]
        others = np.where(genes[:, None] == controls, np.nan, standardized)[:, moved]
        if others.shape[1] < _LEAST_CONTROLS:
            return cls(center, width, np.zeros(len(effects)), np.ones(len(effects)))
        raised = ~np.isnan(others).all(axis=1)  # not: genes that no slide shows
        shift, reach = np.full((2, len(effects)), np.nan)
        shift[raised], reach[raised] = (f(others[raised], axis=1) for f in (np.nanmean, np.nanstd))
        return cls(center, width, shift, np.where(reach == 0, 1.0, reach))

    def specific(self, effects: Floats) -> Floats:
        """Compute specific effects: screened genes × targets and controls."""
        standardized = (effects - self.center) / self.width
        specific = (standardized - self.shift[:, None]) / self.reach[:, None]
        return np.where(np.isfinite(self.width), specific, 0.0)  # a target that no gene changes

    def effect(self, values: Floats, gene: Positions, target: Positions) -> Floats:
        """Convert specific effects of `gene` on `target` back to log1p counts."""
        # A target that no gene changes has an infinite width, and every effect on it is 0.
        width = np.where(np.isfinite(self.width), self.width, 0.0)[target]
        return (values * self.reach[gene] + self.shift[gene]) * width + self.center[target]


def upper_tail(size: Floats, null: Floats) -> Floats:
    """Compute the permutation p of sizes among sorted sizes of a null; NaN stays."""
    # Sizes that are equal up to rounding count as reached.
    below = np.searchsorted(null, size * (1 - 1e-9), side="left")
    p = (1 + len(null) - below) / (1 + len(null))
    return np.where(np.isnan(size), np.nan, p)


def _standardized(values: Floats, n: Floats, total: Floats, square: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        variance = square / n - mean**2
    varied = variance > 1e-12 * np.maximum(square / np.maximum(n, 1), 1e-30)
    scale = np.sqrt(np.where(varied, variance, 1.0))
    # A null without variance cannot be exceeded: z is 0.
    return np.where(np.isnan(values) | (n < 2), np.nan, np.where(varied, values - mean, 0) / scale)


def significance(direction: Direction, effects: Floats) -> dict[str, Floats]:
    """Compute the columns ``null_*``, ``z``, ``p``, ``q``, ``p_coexpressed`` and ``p_partners``.

    Parameters
    ----------
    direction
        The pairs, and the genes that the raised ones are compared with.
    effects
        Raised genes × columns, mean over slides.
    """
    at_source = np.searchsorted(direction.raised, direction.source)
    at_target = np.searchsorted(direction.targets, direction.target)
    of_pair = np.searchsorted(direction.sources, direction.source)
    general = GeneEffects.of(effects, direction.raised, direction.controls)
    specific = general.specific(effects)[:, : len(direction.targets)]
    of_pairs = specific[at_source, at_target]

    def null(genes: Positions) -> Floats:
        rows = np.searchsorted(direction.raised, genes)[of_pair]
        return np.asarray(specific[rows, at_target[:, None]])

    matched = null(direction.matched)
    bounds = np.nanquantile(matched, [0.025, 0.5, 0.975], axis=1)
    low, median, high = general.effect(bounds, at_source, at_target)
    scores = NullScores.of(of_pairs, matched)
    p = scores.p()
    return {
        "null_low": low, "null_median": median, "null_high": high, "z": scores.z, "p": p,
        "q": benjamini_hochberg(p),
        "p_coexpressed": NullScores.of(of_pairs, null(direction.coexpressed)).p(),
        "p_partners": _among_partners(direction, specific),
    }  # fmt: skip


def _among_partners(direction: Direction, effects: Floats) -> Floats:
    """Rank each pair among all ligands on its target, each against its own matched genes."""
    swaps = direction.swaps()
    paired = np.zeros((len(swaps.sources), len(swaps.targets)), dtype=bool)
    paired[swaps.source, swaps.target] = True
    p = np.full(paired.shape, np.nan)
    for column, is_pair in enumerate(paired.T):
        own, matched = (effects[rows, column] for rows in (swaps.sources, swaps.matched_sources))
        z = np.abs(NullScores.of(own, matched).z)
        others = np.sort(z[~is_pair & ~np.isnan(z)])
        if len(others):
            p[:, column] = upper_tail(z, others)
    return p[swaps.source, swaps.target]
