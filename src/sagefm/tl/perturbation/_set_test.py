"""Test whether the pairs of a set stand out more than the same pairs of other genes.

For scores x(g, t) of a gene g on a target t, whatever their kind::

    z(l, t)  = (x(l, t) - mean over l and the genes m matched to l of x(m, t)) / their sd
    auroc    = chance that z of a pair is above that of a gene matched to its ligand, mean of pairs
    T        = mean over pairs of c(l, t) = z(l, t) - mean over the targets of the set of z(l, ·)

The means over targets count a target as often as it stands in the set. They take away what a ligand
does to all targets: ligands as a class share compartments with receptors as a class, so that pairs
whose targets were shuffled stand above matched genes as well. Of a set of shuffled pairs T is 0 on
average. There are three nulls of T, each by swaps of whole genes, since the pairs of a gene are not
independent: every ligand replaced by one of its matched genes in all of its pairs (``z``, ``p``);
every target likewise (``p_targets``); and the ligands exchanged among themselves (``p_ligands``).
All p are one-sided: pairs that stand out upward.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sagefm._types import Floats, Positions
from sagefm.stats.resampling import interval, resampled

N_DRAWS = 2000
_LEAST_GENES = 3
"""Fewer ligands or targets are not resampled, and fewer ligands are no set to test."""
_LIMIT = 5.0
"""A mean over pairs is not to be made by one of them."""
_COLUMNS = 128
"""Whose scores of all matched genes are in memory together."""
_CONSTANT = 1e-9
"""Scores that vary less than this fraction of the largest do not vary."""


@dataclass(frozen=True)
class GeneSwaps:
    """Where pairs, and the genes that replace theirs, stand in a matrix of scores.

    All are rows (of raised genes) and columns (of predicted ones) of that matrix.
    """

    source: Positions
    """Row of each pair, as a place among `sources`."""
    target: Positions
    """Column of each pair, as a place among `targets`."""
    sources: Positions
    """Rows of the genes that are raised in pairs, each once."""
    targets: Positions
    """Columns of the genes that are predicted in pairs, each once."""
    matched_sources: Positions
    """Rows: sources × genes."""
    matched_targets: Positions
    """Columns: targets × genes."""

    def of(self, pairs: Positions) -> "GeneSwaps":
        """Keep some of the pairs."""
        sources, source = np.unique(self.source[pairs], return_inverse=True)
        targets, target = np.unique(self.target[pairs], return_inverse=True)
        return GeneSwaps(
            source, target, self.sources[sources], self.targets[targets],
            self.matched_sources[sources], self.matched_targets[targets],
        )  # fmt: skip


class SetTest(NamedTuple):
    """The result of a test; the formula stands in the module."""

    n_pairs: int
    n_ligands: int
    auroc: float
    low: float
    high: float
    """95 % interval of `auroc`: the wider of bootstraps over ligands and over targets."""
    auroc_shuffled: float
    """`auroc` to be expected when the targets are shuffled among the ligands."""
    z: float
    p: float
    p_ligands: float
    p_targets: float


def set_test(scores: Floats, swaps: GeneSwaps, seed: int = 0) -> SetTest:
    """Test whether the pairs of a set stand out.

    Parameters
    ----------
    scores
        Raised genes × predicted genes, without missing values.
    swaps
        Which are pairs, and what replaces their genes.
    seed
        Of the draws of genes and the resamples.

    Returns
    -------
    z and p are missing for fewer than three ligands, or a single target.
    """
    source, target = swaps.source, swaps.target
    frequency = np.bincount(target, minlength=len(swaps.targets)) / len(target)
    z = _standardized(scores, swaps, swaps.targets)
    own, matched = z[:, 0], z[:, 1:]
    above = (own[:, None] > matched).mean(axis=1) + (own[:, None] == matched).mean(axis=1) / 2
    auroc = above[source, target]
    centered = own - (own @ frequency)[:, None]
    of_sources = np.zeros(len(own))
    np.add.at(of_sources, source, centered[source, target])
    total = of_sources.sum()
    replaced = np.zeros(matched.shape[:2])
    of_matched = matched - (matched @ frequency)[:, :, None]
    np.add.at(replaced, source, of_matched[source, :, target])
    chance = np.random.default_rng(seed)
    low, high = _interval(auroc, source, target, seed)
    shuffled = float((above @ frequency)[source].mean())
    sizes = len(source), len(own), float(auroc.mean()), low, high, shuffled
    if len(own) < _LEAST_GENES or len(frequency) < 2:
        return SetTest(*sizes, *[np.nan] * 4)
    return SetTest(
        *sizes,
        z=_distance(of_sources, replaced),
        p=_reached(total, _draws(of_sources, replaced, chance)),
        p_ligands=_reached(total, _permuted(centered, source, target, chance)),
        p_targets=_reached(total, _draws(*_exchanged(scores, swaps), chance)),
    )


def _standardized(scores: Floats, swaps: GeneSwaps, columns: Positions) -> Floats:
    """Compute z on some columns: sources × (itself, matched genes) × columns, within -5 to 5.

    A source and its matched genes are treated alike: without effect, it is one of them.
    """
    rows = np.column_stack([swaps.sources, swaps.matched_sources])
    z = scores[rows[:, :, None], columns]
    sd = z.std(axis=1, keepdims=True)
    sd[~(sd > _CONSTANT * np.abs(z).max(initial=0.0))] = np.inf  # nothing exceeds a constant
    z -= z.mean(axis=1, keepdims=True)
    z /= sd
    return np.clip(z, -_LIMIT, _LIMIT, out=z)


def _permuted(
    centered: Floats, source: Positions, target: Positions, chance: np.random.Generator
) -> Floats:
    """Exchange the ligands among themselves: the sum over pairs in each draw."""
    n = len(centered)
    # Of each ligand, the sum over its targets if another took its place.
    sums = np.zeros((n, n))
    np.add.at(sums, source, centered[:, target].T)
    rows = np.arange(n)
    return np.array([sums[rows, chance.permutation(n)].sum() for _ in range(N_DRAWS)])


def _exchanged(scores: Floats, swaps: GeneSwaps) -> tuple[Floats, Floats]:
    """Replace each target by its matched genes: sums over its pairs.

    Centered per target, by what all ligands do to it: over the pairs of the set this takes away as
    much as centering by what each ligand does to all targets.

    Returns
    -------
    (targets) of the targets themselves, and targets × matched genes.
    """
    columns = np.column_stack([swaps.targets, swaps.matched_targets])
    every, at = np.unique(columns, return_inverse=True)
    # One after the other, for these are many columns.
    blocks = np.array_split(every, -(-len(every) // _COLUMNS))
    own = np.hstack([_standardized(scores, swaps, block)[:, 0] for block in blocks])
    centered = own - np.bincount(swaps.source) / len(swaps.source) @ own
    at = at.reshape(columns.shape)
    sums = np.zeros(at.shape)
    np.add.at(sums, swaps.target, centered[swaps.source[:, None], at[swaps.target]])
    return sums[:, 0], sums[:, 1:]


def _draws(own: Floats, replaced: Floats, chance: np.random.Generator) -> Floats:
    """Draw for each gene of the set itself or one of its matched genes, and add up: the null.

    With itself, since then the genes of the set are one of the draws that are alike without effect,
    however few genes are matched.
    """
    every = np.column_stack([own, replaced])
    drawn = chance.integers(every.shape[1], size=(N_DRAWS, len(every)))
    return np.asarray(every[np.arange(len(every)), drawn].sum(axis=1))


def _distance(own: Floats, replaced: Floats) -> float:
    """Compute how many standard deviations of the null the sum over the set lies above its mean.

    That of the mean over few matched genes is a part of them.
    """
    n = replaced.shape[1]
    variance = replaced.var(axis=1, ddof=1).sum() * (1 + 1 / n)
    total = float((own - replaced.mean(axis=1)).sum())
    return total / float(np.sqrt(variance)) if variance > 0 else 0.0


def _reached(total: float, null: Floats) -> float:
    """Compute the fraction of the null that is at least as large; equal up to rounding counts."""
    reached = null >= total - 1e-9 * abs(total)
    return float((1 + reached.sum()) / (1 + len(null)))


def _interval(
    auroc: Floats, source: Positions, target: Positions, seed: int
) -> tuple[float, float]:
    """Resample ligands, and targets, with all their pairs; keep the wider interval."""
    bounds = []
    for gene in (source, target):
        n_pairs = np.bincount(gene)
        if len(n_pairs) < _LEAST_GENES:
            return np.nan, np.nan
        weights = resampled(len(n_pairs), seed)
        bounds.append(interval(weights @ np.bincount(gene, auroc) / (weights @ n_pairs)))
    low, high = max(bounds, key=lambda ends: float(ends[1] - ends[0]))
    return float(low), float(high)
