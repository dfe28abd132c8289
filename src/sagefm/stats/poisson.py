"""Mean and variance of log1p of a Poisson count, and the rate of a given mean.

Predictions are means of log1p counts, which are lower than log1p of the rate, by up to 0.1 near one
count. Rates are converted to predictions by the mean of log1p(Poisson(rate)), and predictions to
rates by its inverse. The variance is the error that remains even if the rates are known: the
counting-noise floor.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from sagefm._types import Singles

NODES = 256
"""Nodes of the tables per unit of log1p."""
_HIGHEST = 14.0
"""Highest log1p count in the tables: 1.2 million counts."""
_SUMMED_BELOW = 1000.0
"""Up to this rate, sum over counts; beyond, four terms of the series are enough."""


def log1p_mean(rate: ArrayLike) -> Singles:
    """Compute the mean of log1p(Poisson(rate)), to 1e-5."""
    return _look_up(np.log1p(np.asarray(rate, dtype=np.float32)), _tables()[0])


def log1p_variance(rate: ArrayLike) -> Singles:
    """Compute the variance of log1p(Poisson(rate)), to 1e-5."""
    return _look_up(np.log1p(np.asarray(rate, dtype=np.float32)), _tables()[1])


def rate_of(mean: ArrayLike) -> Singles:
    """Compute the rate of Poisson counts whose mean log1p is `mean`; 0 if that is not above 0."""
    return _look_up(np.asarray(mean, dtype=np.float32), _tables()[2])


def mean_table() -> Singles:
    """Get the table of :func:`log1p_mean`, by log1p of the rate, evenly spaced from 0."""
    return _tables()[0]


def _look_up(at: Singles, table: Singles) -> Singles:
    """Interpolate a table with evenly spaced nodes, five times as fast as np.interp."""
    place = np.clip(at * np.float32(NODES), 0, np.float32(len(table) - 1.001))
    node = place.astype(np.int32)
    place -= node
    low = table[node]
    return np.asarray(low + place * (table[node + 1] - low), dtype=np.float32)


@lru_cache(maxsize=1)
def _tables() -> tuple[Singles, Singles, Singles]:
    """Compute tables of mean and variance by log1p of the rate, and of rate by mean."""
    from scipy.special import gammaln, xlogy

    logs = np.arange(0.0, _HIGHEST, 1 / NODES)
    rates = np.expm1(logs)
    # Central moments of the Poisson: rate, rate, 3 rate² + rate.
    scaled = 1 / (1 + rates)
    fourth = 3 * rates**2 + rates
    means = logs - rates * scaled**2 / 2 + rates * scaled**3 / 3 - fourth * scaled**4 / 4
    variances = (
        rates * scaled**2
        - rates * scaled**3
        + fourth * (scaled**4 / 4 + 2 * scaled**4 / 3)
        - (rates * scaled**2 / 2) ** 2
    )
    counts = np.arange(int(_SUMMED_BELOW + 12 * np.sqrt(_SUMMED_BELOW)))
    for rows in np.array_split(np.flatnonzero(rates <= _SUMMED_BELOW), 8):
        rate = rates[rows, None]
        probability = np.exp(xlogy(counts, rate) - rate - gammaln(counts + 1))
        means[rows] = probability @ np.log1p(counts)
        variances[rows] = probability @ np.log1p(counts) ** 2 - means[rows] ** 2
    backward = np.expm1(np.interp(logs, means, logs))
    return means.astype(np.float32), variances.astype(np.float32), backward.astype(np.float32)
