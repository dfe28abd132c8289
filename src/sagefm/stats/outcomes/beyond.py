"""Test whether features say more of an outcome than other features do, such as clinical ones."""

from dataclasses import dataclass

import numpy as np

from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.crossval import bootstrap, cross_validate, draw_folds
from sagefm.stats.outcomes.evaluation import N_PERMUTATIONS_OF_SETS, FeatureSet, p_value
from sagefm.stats.outcomes.targets import Target
from sagefm.stats.resampling import interval


@dataclass(frozen=True)
class Gain:
    """What features add to other features."""

    base: str
    added: str
    concordance: float
    """Of both together."""
    gain: float
    """Of both together minus that of the base alone."""
    low: float
    """Bounds of the gain, 95 %."""
    high: float
    p: float


def beyond(
    target: Target,
    base: FeatureSet,
    added: FeatureSet,
    *,
    strata: Codes | None = None,
    n_permutations: int = N_PERMUTATIONS_OF_SETS,
    seed: int = 0,
) -> Gain:
    """Test whether features say more of an outcome than a base does.

    Parameters
    ----------
    target
        The outcome.
    base
        Features that are there anyway, such as clinical ones.
    added
        Features whose part beyond the base is tested. They are reduced to half as many components
        as the target permits, which are fitted to all patients (without their outcome), so that
        permuted patients have what patients have.
    strata, n_permutations, seed
        As for :func:`evaluate_sets`.

    Returns
    -------
    The gain of concordance, with an interval by bootstrap over patients, paired, and
    widened as for :func:`evaluate_sets`. For p the patients
    of the added features are permuted, while base and outcome remain as they are: it is the
    probability that features of other patients add as much.

    Raises
    ------
    InputError
        There are too few patients or events.
    """
    target.require_enough()
    within = None if strata is None else strata[target.known]
    orders = target.permuted(n_permutations, seed, within)
    extra = added.fold(target.known, max(1, target.n_components // 2)).features
    known = np.flatnonzero(target.known)
    permuted = np.tile(extra, (len(orders), 1, 1))
    permuted[:, known] = extra[known[orders]]
    reduce_base = base.reducer(target)

    def reduce_both(training: Bools) -> Floats:
        features = reduce_base(training)
        repeated = np.broadcast_to(features, (len(orders), *features.shape))
        return np.concatenate([repeated, permuted], axis=-1)

    truth = np.tile(orders[:1], (len(orders), 1))
    folds = draw_folds(target.n_patients, seed)
    both = cross_validate(target, reduce_both, truth, folds)
    alone = cross_validate(target, reduce_base, orders[:1], folds)
    draws = bootstrap(target.blocks, seed)
    low, high = interval(both.pairs.of_draws(draws) - alone.pairs.of_draws(draws))
    score = float(both.concordance[0])
    gain = score - float(alone.concordance[0])
    low, high = gain + both.widening * (np.array([low, high]) - gain)
    return Gain(
        base.name, added.name, score, gain, float(low), float(high), p_value(both.concordance)
    )
