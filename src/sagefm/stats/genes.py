"""Score predictions of masked genes by sums that add up over spots and slides."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sagefm._types import Floats, Positions
from sagefm.stats.poisson import rate_of

LEAST_RATE = 1e-3
"""Counts; lower rates are raised to this, because the deviance at rate zero is infinite."""
_CONSTANT = 1e-10
"""A variance below this fraction of the mean square is rounding error."""


@dataclass(frozen=True)
class GeneSums:
    """Sums over masked entries per gene, from which all scores of genes are computed.

    t is the truth, p the prediction and d the library size of the spot without its masked genes,
    all as log1p counts.
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
    """Of counts; 0 if only log1p counts were compared."""

    @classmethod
    def zeros(cls, n_genes: int) -> Self:
        """Create sums without entries."""
        return cls(*(np.zeros(n_genes) for _ in cls.__dataclass_fields__))

    @classmethod
    def of(cls, truth: ArrayLike, predicted: ArrayLike, log_library: Floats) -> Self:
        """Sum over spots × genes that are all masked, log1p counts.

        Parameters
        ----------
        truth, predicted
            Spots × genes.
        log_library
            For each spot its library size without the masked genes, log1p.
        """
        t, p = (np.asarray(values, dtype=np.float64) for values in (truth, predicted))
        n, d, dd = (
            np.full(t.shape[1], value)
            for value in (float(len(t)), log_library.sum(), log_library @ log_library)
        )
        tt, pp, tp = (np.einsum("ij,ij->j", a, b) for a, b in ((t, t), (p, p), (t, p)))
        td, pd = log_library @ t, log_library @ p
        return cls(n, t.sum(axis=0), tt, d, dd, td, p.sum(axis=0), pp, tp, pd, np.zeros_like(n))

    def add(self, other: "GeneSums", columns: Positions | slice = slice(None)) -> None:
        """Add the sums of some genes, which are at `columns`, in place."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[columns] += getattr(other, name)

    @property
    def squared_error(self) -> Floats:
        """Sum of squared errors on log1p counts."""
        return np.maximum(self.tt - 2 * self.tp + self.pp, 0.0)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Genes whose truth does not vary, so that they have no correlation."""
        return np.asarray(_variance(self.n, self.t, self.tt) == 0)

    @property
    def constant_prediction(self) -> NDArray[np.bool_]:
        """Genes whose prediction does not vary."""
        return np.asarray(_variance(self.n, self.p, self.pp) == 0)

    def pearson(self) -> Floats:
        """Correlate truth and prediction per gene; NaN if the truth is constant.

        If only the prediction is constant, the correlation is 0.
        """
        return _correlation(self.n, self.t, self.p, self.tt, self.pp, self.tp)

    def library_pearson(self) -> Floats:
        """Correlate truth and library size; NaN and 0 as for :meth:`pearson`."""
        return _correlation(self.n, self.t, self.d, self.tt, self.dd, self.td)

    def library_predicted(self) -> Floats:
        """Correlate prediction and library size; 0 if one of them is constant."""
        return np.nan_to_num(_correlation(self.n, self.p, self.d, self.pp, self.dd, self.pd))

    def predicted_variance(self) -> Floats:
        """Compute the variance of the prediction."""
        return _variance(self.n, self.p, self.pp) / self.n

    def depth_removed(self) -> Floats:
        """Compute the partial correlation of truth and prediction given library size.

        NaN and 0 as for :meth:`pearson`.
        """
        truth = self.library_pearson()
        guess = self.library_predicted()
        left = (1 - truth**2) * (1 - guess**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (self.pearson() - truth * guess) / np.sqrt(left)
        r[left < _CONSTANT] = 0.0
        r[self.constant] = np.nan
        return np.asarray(np.clip(r, -1, 1), dtype=np.float64)


class MaskedTruth:
    """Counts of masked genes, with which predictions are compared.

    Parameters
    ----------
    counts
        Spots × genes, raw counts.
    mask
        Spots × genes: what is scored.
    library_size
        Counts of each spot without its masked genes.
    """

    def __init__(
        self, counts: NDArray[np.float32], mask: NDArray[np.bool_], library_size: ArrayLike
    ) -> None:
        self._mask = mask
        self._flat = np.flatnonzero(mask)
        self._spots, self._genes = np.divmod(self._flat, mask.shape[1])
        self._counts = self.of(counts)
        self.truth = np.log1p(self._counts)
        self._log_library = np.log1p(np.asarray(library_size, dtype=np.float64))[self._spots]
        size, truth = self._log_library, self.truth
        columns = (None, truth, truth**2, size, size**2, size * truth)
        self._sums = [self._per_gene(values) for values in columns]

    def of(self, values: NDArray[Any]) -> Floats:
        """Get the masked entries of spots × genes values, row after row."""
        values = np.asarray(values)
        # take() is three times as fast as a mask, if no copy is needed.
        contiguous = values.flags.c_contiguous
        entries = values.ravel().take(self._flat) if contiguous else values[self._mask]
        return np.asarray(entries, dtype=np.float64)

    def per_spot(self, values: Floats) -> Floats:
        """Average masked entries over each spot; NaN for a spot without masked entries."""
        n = np.bincount(self._spots, minlength=len(self._mask))
        sums = np.bincount(self._spots, values, minlength=len(self._mask))
        return np.asarray(np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0))

    def _per_gene(self, values: Floats | None) -> Floats:
        """Sum masked entries of each gene; count them if no values are given."""
        sums = np.bincount(self._genes, values, minlength=self._mask.shape[1])
        return np.asarray(sums, dtype=np.float64)

    @property
    def n(self) -> int:
        """Number of masked entries."""
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
        columns = (guess, guess**2, guess * self.truth, self._log_library * guess)
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
        """Average spots × genes values over masked entries."""
        return float(self.of(values).sum()) / max(self.n, 1)


@dataclass
class GeneTally:
    """Sums of each gene over slides; memory does not depend on the number of spots."""

    pooled: GeneSums
    errors: list[NDArray[np.float32]]
    """Per slide, sum of squared errors of each gene (log1p counts)."""
    within: Floats
    """Sum over slides of the correlation within the slide; a constant gene adds 0."""
    depth_removed: Floats
    n_within: Floats
    """Number of slides in which a gene varies."""

    @classmethod
    def begin(cls, n_genes: int) -> Self:
        """Create a tally without slides."""
        return cls(GeneSums.zeros(n_genes), [], *(np.zeros(n_genes) for _ in range(3)))

    def add(self, sums: GeneSums, columns: NDArray[np.int64]) -> None:
        """Add a slide, whose genes are at `columns`."""
        self.pooled.add(sums, columns)
        errors = np.zeros(len(self.within), dtype=np.float32)
        errors[columns] = sums.squared_error
        self.errors.append(errors)
        self.within[columns] += np.nan_to_num(sums.pearson())
        self.depth_removed[columns] += np.nan_to_num(sums.depth_removed())
        self.n_within[columns] += ~sums.constant

    def table(self, genes: list[str]) -> pd.DataFrame:
        """Tabulate the scores, a row per gene.

        Returns
        -------
        gene, n (masked entries), n_slides (where it varies), mse, r_pooled, r_within and
        r_depth_removed (means over slides), p (of r_pooled, as published).
        """
        r = self.pooled.pearson()
        return pd.DataFrame(
            {
                "gene": genes,
                "n": self.pooled.n.astype(np.int64),
                "n_slides": self.n_within.astype(np.int64),
                "mse": self.mse,
                "r_pooled": r,
                "r_within": self.r_within,
                "r_depth_removed": self.r_depth_removed,
                "p": pearson_p(r, self.pooled.n),
            }
        )

    @property
    def mse(self) -> Floats:
        """Mean squared error of log1p counts; NaN without an entry."""
        return _divided(self.pooled.squared_error, self.pooled.n)

    @property
    def r_within(self) -> Floats:
        """Mean over slides of the correlation within the slide; NaN where a gene never varies."""
        return _divided(self.within, self.n_within)

    @property
    def r_depth_removed(self) -> Floats:
        """Mean over slides of the correlation with library size removed; NaN as above."""
        return _divided(self.depth_removed, self.n_within)


def pearson_p(r: ArrayLike, n: ArrayLike) -> Floats:
    """Compute the two-sided p of correlations of `n` independent pairs; NaN for fewer than 3."""
    r, n = np.broadcast_arrays(np.asarray(r, dtype=np.float64), np.asarray(n, dtype=np.float64))
    p = np.full(r.shape, np.nan)
    known = ~np.isnan(r) & (n > 2)
    freedom = n[known] - 2
    left = np.maximum(1 - r[known] ** 2, 0.0)
    with np.errstate(divide="ignore"):
        p[known] = 2 * stats.t.sf(np.abs(r[known]) * np.sqrt(freedom / left), freedom)
    return p


def _divided(total: Floats, n: Floats) -> Floats:
    return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)


def _variance(n: Floats, s: Floats, ss: Floats) -> Floats:
    """Compute the sum of squared deviations, exactly 0 if it is only rounding error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        varied = ss - s**2 / n
    varied[~(varied > _CONSTANT * ss)] = 0.0
    return varied


def _correlation(n: Floats, a: Floats, b: Floats, aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Compute Pearson correlations from sums; NaN if a is constant, 0 if only b is."""
    scale = np.sqrt(_variance(n, a, aa)) * np.sqrt(_variance(n, b, bb))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (ab - a * b / n) / scale
    r[scale == 0] = 0.0
    r[_variance(n, a, aa) == 0] = np.nan
    return np.asarray(np.clip(r, -1, 1), dtype=np.float64)
