"""How well genes are predicted where they were hidden: sums that add up over spots and slides."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sagefm._types import Floats
from sagefm.stats.poisson import rate_of

LEAST_RATE = 1e-3
"""Counts: lower rates count as this, for the deviance of one count at rate zero is infinite."""
_CONSTANT = 1e-10
"""A variance below this share of the mean square is none: what rounding leaves of a constant."""


@dataclass(frozen=True)
class GeneSums:
    """Sums over hidden entries, per gene: t is the truth, p the prediction, d log visible depth.

    All on log1p counts, but `deviance`, which is of counts.
    """

    n: Floats
    t: Floats
    tt: Floats
    d: Floats
    dd: Floats
    td: Floats
    p: Floats
    pp: Floats
    tp: Floats
    pd: Floats
    deviance: Floats

    def __add__(self, other: "GeneSums") -> "GeneSums":
        return GeneSums(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> list[Floats]:
        return [getattr(self, name) for name in self.__dataclass_fields__]

    @property
    def squared_error(self) -> Floats:
        """Sum of squared errors on log1p counts."""
        return np.maximum(self.tt - 2 * self.tp + self.pp, 0.0)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Genes whose truth does not vary: they have no correlation."""
        return np.asarray(_variance(self.n, self.t, self.tt) == 0)

    def pearson(self) -> Floats:
        """Correlation of truth and prediction per gene, NaN where the truth is constant.

        A prediction that does not vary explains nothing of a gene that does: 0.
        """
        return _correlation(self.n, self.t, self.p, self.tt, self.pp, self.tp)

    def depth_removed(self) -> Floats:
        """Correlation of the residuals of truth and prediction on log visible depth.

        That is the partial correlation; NaN and 0 as for :meth:`pearson`.
        """
        truth = _correlation(self.n, self.t, self.d, self.tt, self.dd, self.td)
        guess = _correlation(self.n, self.p, self.d, self.pp, self.dd, self.pd)
        guess = np.nan_to_num(guess)
        left = (1 - truth**2) * (1 - guess**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (self.pearson() - truth * guess) / np.sqrt(left)
        r[left < _CONSTANT] = 0.0
        r[self.constant] = np.nan
        return np.asarray(np.clip(r, -1, 1), dtype=np.float64)


class MaskedTruth:
    """The hidden truth of some spots, against which predictions are scored.

    Parameters
    ----------
    counts
        Spots × genes, raw counts.
    hidden
        Spots × genes: what is scored.
    depth
        Visible counts of each spot.
    """

    def __init__(
        self, counts: NDArray[np.float32], hidden: NDArray[np.bool_], depth: ArrayLike
    ) -> None:
        self._hidden = hidden
        self._flat = np.flatnonzero(hidden)
        self._spots, self._genes = np.divmod(self._flat, hidden.shape[1])
        self._counts = self.of(counts)
        self.truth = np.log1p(self._counts)
        self._depth = np.log1p(np.asarray(depth, dtype=np.float64))[self._spots]
        depths, truth = self._depth, self.truth
        columns = (None, truth, truth**2, depths, depths**2, depths * truth)
        self._sums = [self._per_gene(values) for values in columns]

    def of(self, values: NDArray[Any]) -> Floats:
        """Take what is hidden out of spots × genes values, row after row."""
        values = np.asarray(values)
        # From one long row it comes three times as fast, where there is one without a copy.
        found = values.ravel().take(self._flat) if values.flags.c_contiguous else None
        return np.asarray(values[self._hidden] if found is None else found, dtype=np.float64)

    def per_spot(self, values: Floats) -> Floats:
        """Average values of hidden entries over each spot; NaN for a spot that hides none."""
        n = np.bincount(self._spots, minlength=len(self._hidden))
        sums = np.bincount(self._spots, values, minlength=len(self._hidden))
        return np.asarray(np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0))

    def _per_gene(self, values: Floats | None) -> Floats:
        """Add up hidden entries of each gene; count them if no values are given."""
        sums = np.bincount(self._genes, values, minlength=self._hidden.shape[1])
        return np.asarray(sums, dtype=np.float64)

    @property
    def n(self) -> int:
        """How many entries are hidden."""
        return len(self._flat)

    def score(
        self, prediction: NDArray[np.float32], rate: NDArray[np.float32] | None = None
    ) -> GeneSums:
        """Compare a prediction with the truth.

        Parameters
        ----------
        prediction
            Spots × genes, log1p counts.
        rate
            Spots × genes, expected counts; what the prediction implies if not given.

        Returns
        -------
        The sums of each gene.
        """
        guess = self.of(prediction)
        columns = (guess, guess**2, guess * self.truth, self._depth * guess)
        sums = [self._per_gene(values) for values in columns]
        at = np.asarray(rate_of(guess), dtype=np.float64) if rate is None else self.of(rate)
        at = np.maximum(at, LEAST_RATE)
        truth = self._counts
        terms = at - truth
        positive = truth > 0
        terms[positive] += truth[positive] * np.log(truth[positive] / at[positive])
        deviance = 2 * self._per_gene(terms)
        return GeneSums(*(*self._sums, *sums, deviance))

    def mean(self, values: NDArray[np.float32]) -> float:
        """Average spots × genes values over what is hidden."""
        return float(self.of(values).sum()) / max(self.n, 1)


@dataclass
class GeneTally:
    """What is kept of each gene while slides go by: memory does not grow with the slides' spots."""

    pooled: GeneSums
    errors: list[NDArray[np.float32]]
    """Per slide, sum of squared errors of each gene (log1p counts)."""
    within: Floats
    """Sum over slides of the correlation within the slide; genes that are constant there add 0."""
    depth_removed: Floats
    n_within: Floats
    """In how many slides a gene varies."""

    @classmethod
    def begin(cls, n_genes: int) -> Self:
        """Start with no slide."""
        none = np.zeros(n_genes)
        sums = GeneSums(*(none.copy() for _ in GeneSums.__dataclass_fields__))
        return cls(sums, [], none.copy(), none.copy(), none.copy())

    def add(self, sums: GeneSums, columns: NDArray[np.int64]) -> None:
        """Add a slide whose genes stand at `columns`."""
        n_genes = len(self.within)
        spread = []
        for values in sums._all():
            whole = np.zeros(n_genes)
            whole[columns] = values
            spread.append(whole)
        whole_sums = GeneSums(*spread)
        self.pooled = self.pooled + whole_sums
        self.errors.append(whole_sums.squared_error.astype(np.float32))
        self.within[columns] += np.nan_to_num(sums.pearson())
        self.depth_removed[columns] += np.nan_to_num(sums.depth_removed())
        self.n_within[columns] += ~sums.constant

    def table(self, genes: list[str]) -> pd.DataFrame:
        """Make a row per gene.

        Returns
        -------
        gene, n (hidden entries), n_slides (where it varies), mse, r_pooled, r_within and
        r_depth_removed (means over slides), p (of r_pooled, as published).
        """
        pooled = self.pooled
        r = pooled.pearson()
        with np.errstate(invalid="ignore", divide="ignore"):
            return pd.DataFrame(
                {
                    "gene": genes,
                    "n": pooled.n.astype(np.int64),
                    "n_slides": self.n_within.astype(np.int64),
                    "mse": pooled.squared_error / pooled.n,
                    "r_pooled": r,
                    "r_within": self.within / self.n_within,
                    "r_depth_removed": self.depth_removed / self.n_within,
                    "p": pearson_p(r, pooled.n),
                }
            )


def pearson_p(r: ArrayLike, n: ArrayLike) -> Floats:
    """Two-sided p of correlations of `n` independent pairs of normal numbers; NaN below three."""
    r, n = np.broadcast_arrays(np.asarray(r, dtype=np.float64), np.asarray(n, dtype=np.float64))
    p = np.full(r.shape, np.nan)
    known = ~np.isnan(r) & (n > 2)
    freedom = n[known] - 2
    left = np.maximum(1 - r[known] ** 2, 0.0)
    with np.errstate(divide="ignore"):
        p[known] = 2 * stats.t.sf(np.abs(r[known]) * np.sqrt(freedom / left), freedom)
    return p


def _variance(n: Floats, s: Floats, ss: Floats) -> Floats:
    """Sum of squared deviations, exactly 0 where only rounding is left."""
    with np.errstate(invalid="ignore", divide="ignore"):
        varied = ss - s**2 / n
    varied[~(varied > _CONSTANT * ss)] = 0.0
    return varied


def _correlation(n: Floats, a: Floats, b: Floats, aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Pearson correlation from sums; NaN where a does not vary, 0 where only b does not."""
    scale = np.sqrt(_variance(n, a, aa)) * np.sqrt(_variance(n, b, bb))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (ab - a * b / n) / scale
    r[scale == 0] = 0.0
    r[_variance(n, a, aa) == 0] = np.nan
    return np.asarray(np.clip(r, -1, 1), dtype=np.float64)
