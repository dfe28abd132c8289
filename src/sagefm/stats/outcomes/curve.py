"""How the concordance grows with the number of patients, and how many would be needed."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.crossval import (
    N_FOLDS,
    Pairs,
    concordance_interval,
    cross_validate,
    draw_folds,
)
from sagefm.stats.outcomes.evaluation import FeatureSet
from sagefm.stats.outcomes.targets import Target, most_components
from sagefm.stats.resampling import LEVEL

N_DRAWS = 40
_FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_LEAST_TRAINING = 8
_N_NULL = 200
ALPHA, POWER = 0.05, 0.8
_MAX_PATIENTS = 100_000


@dataclass(frozen=True)
class NeededPatients:
    """How many patients would be needed to find an effect like the one that was measured."""

    n_patients: float
    """Number of patients; NaN where it cannot be said."""
    low: float
    """With the upper bound of the concordance."""
    high: float
    """With the lower bound of the concordance; infinite if that is chance."""
    text: str


def needed_patients(
    n_patients: int, concordance: float, low: float, high: float, null_spread: float
) -> NeededPatients:
    r"""Compute for how many patients p < 0.05 would be found with a power of 80 %.

    With :math:`C` the concordance that was measured in :math:`n` patients, :math:`s_0` its standard
    deviation over permutations, and :math:`s_1` over bootstrap draws, both of which shrink with the
    square root of the number of patients,

    .. math:: n_\text{needed} = n \left(\frac{1.645 s_0 + 0.842 s_1}{C - 0.5}\right)^2 .

    Parameters
    ----------
    n_patients
        Number of patients at hand.
    concordance, low, high
        As measured in them, with its 95 % interval.
    null_spread
        Standard deviation over permutations.

    Notes
    -----
    It is taken for granted that fits to more patients are no better: fewer may be enough. A set of
    features that was chosen for its concordance would need more.
    """
    spread = (high - low) / (2 * norm.ppf(0.5 + LEVEL / 2))
    width = norm.ppf(1 - ALPHA) * null_spread + norm.ppf(POWER) * spread

    def at(value: float) -> float:
        return float(np.ceil(n_patients * (width / (value - 0.5)) ** 2)) if value > 0.5 else np.inf

    if not low > 0.5:
        text = (
            f"cannot be said: the interval of the concordance ({low:.2f} to {high:.2f}) includes "
            "chance"
        )
        return NeededPatients(np.nan, at(high), np.inf, text)
    found = NeededPatients(at(concordance), at(high), at(low), "")
    text = (
        f"about {found.n_patients:,.0f} patients ({found.low:,.0f} to {found.high:,.0f}) for "
        f"p < {ALPHA} with a power of {POWER:.0%}"
    )
    return NeededPatients(found.n_patients, found.low, found.high, text)


def learning_curve(
    target: Target,
    one: FeatureSet,
    *,
    seed: int = 0,
    strata: Codes | None = None,
) -> pd.DataFrame:
    """Compute the concordance for fits to fewer patients, and how many would be needed.

    For each size, 40 draws of training patients (within classes, or within those with and without
    an event); all others are predicted, and compared with each other.

    Parameters
    ----------
    target
        The outcome.
    one
        A set of features.
    seed
        Of the draws.
    strata
        As for :func:`evaluate_sets`.

    Returns
    -------
    set, n_patients (that are trained on), concordance, low, high (95 %, as for
    :func:`evaluate_sets`). ``attrs["needed"]`` has n_patients, low, high and text of
    :class:`NeededPatients`, for five-fold cross-validation.

    Raises
    ------
    InputError
        There are too few patients or events.
    """
    target.require_enough()
    within = None if strata is None else strata[target.known]
    orders = target.permuted(_N_NULL, seed, within)
    folds = draw_folds(target.n_patients, seed)
    full = cross_validate(target, one.reducer(target), orders, folds)
    needed = needed_patients(
        target.n_patients, float(full.concordance[0]), *full.interval(target, seed),
        float(full.concordance[1:].std()),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    rows = []
    for fraction in _FRACTIONS:
        size = round(fraction * target.n_patients)
        if size >= _LEAST_TRAINING:
            pairs = _subsampled(target, one, fraction, rng)
            low, high = concordance_interval(target, pairs, seed, full.widening)
            rows.append((one.name, size, pairs.concordance, low, high))
    table = pd.DataFrame(rows, columns=["set", "n_patients", "concordance", "low", "high"])
    table.attrs["needed"] = asdict(needed)
    return table


def _subsampled(
    target: Target, one: FeatureSet, fraction: float, rng: np.random.Generator
) -> Pairs:
    """Compare patients that are not among those that were drawn for training."""
    known = np.flatnonzero(target.known)
    n = len(known)
    agreement, compared = np.zeros((2, *target.signs.shape))
    signs = target.signs.astype(np.float64)
    # As many components as in a cross-validation that trains on as many.
    n_components = most_components(round(target.n_events * fraction / (1 - 1 / N_FOLDS)))
    for _ in range(N_DRAWS):
        inner = _draw(target.blocks, fraction, rng)
        training = np.zeros(len(target.known), dtype=bool)
        training[known[inner]] = True
        features = one.fold(training, n_components).features[known]
        fits = target.fit(features[inner], np.arange(n)[None, inner])
        values = target.ranked(fits(features)[0]).T
        tested = np.outer(~inner, ~inner) * signs
        compared += np.abs(tested)
        agreement += tested * np.sign(values[:, :, None] - values[:, None])
    return Pairs(np.triu(agreement), np.triu(compared))


def _draw(blocks: Codes, fraction: float, rng: np.random.Generator) -> Bools:
    """Draw a fraction of the patients of each block."""
    order: Floats = rng.random(len(blocks))
    drawn = np.zeros(len(blocks), dtype=bool)
    for code in np.unique(blocks):
        rows = np.flatnonzero(blocks == code)
        size = max(1, round(fraction * len(rows)))
        drawn[rows[np.argsort(order[rows])[:size]]] = True
    return drawn
