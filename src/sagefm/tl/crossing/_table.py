"""The table of predicted features: correlations, intervals, and baselines."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sagefm._types import Floats
from sagefm.stats.blocked_ridge import BlockedRidge
from sagefm.stats.blocks import BlockFolds, BlockSums
from sagefm.stats.resampling import benjamini_hochberg, interval, resampled
from sagefm.tl.crossing._predictors import Predictors, scaled
from sagefm.tl.crossing._sides import MeasuredSpots, Side
from sagefm.tl.crossing._test import Tested

LIBRARY, SAME, SMOOTHED = "library", "same_gene", "same_gene_smoothed"
ALONE = (LIBRARY, SAME, SMOOTHED)
"""Baselines that know nothing of the predicted modality elsewhere in the slide."""
TOTAL, NEIGHBORS, BOTH = "total", "neighbors", "with_neighbors"
_N_DRAWS = 1000


def baselines(
    predictors: Predictors,
    spots: MeasuredSpots,
    source: Side,
    target: Side,
    tested: Tested,
    folds: BlockFolds,
    partners: Mapping[str, str],
) -> dict[str, Floats]:
    """Predict the features by simple means: name → spots × features (NaN where there is none).

    Parameters
    ----------
    partners
        Feature → the feature of the source of the same gene.
    """
    values, removal = target.columns(tested.chosen), tested.removal
    curves = predictors.library_curves()
    ridge = BlockedRidge(lambda training: removal(scaled(curves, training)), folds)
    of_gene = _partner_values(source, [partners.get(str(n)) for n in target.names[tested.chosen]])
    total = np.concatenate(target.sizes)[:, None] - _raw(target, tested)
    around = spots.smooth(values, center=False)
    found = {
        LIBRARY: ridge.predict(tested.truth),
        SAME: of_gene,
        SMOOTHED: spots.smooth(of_gene, center=True),
        TOTAL: np.log1p(np.maximum(total, 0)),
        NEIGHBORS: around,
        BOTH: _combined(tested, removal(around), folds),
    }
    return {name: removal(np.asarray(one, dtype=np.float64)) for name, one in found.items()}


def _partner_values(source: Side, names: list[str | None]) -> Floats:
    at = source.names.get_indexer(pd.Index([name or "" for name in names]))
    values = source.columns(np.maximum(at, 0))
    values[:, at < 0] = np.nan
    return values


def _raw(target: Side, tested: Tested) -> Floats:
    return np.concatenate([x[:, tested.chosen].toarray() for x in target.counts]).astype(np.float64)


def _combined(tested: Tested, around: Floats, folds: BlockFolds) -> Floats:
    """Combine the prediction with the neighbor mean, by least squares on the other folds."""
    columns = np.stack([tested.predicted, around]).astype(np.float64)  # 2 × spots × features
    combined = np.empty(around.shape)
    for number, near in enumerate(folds.near):
        training, test = ~near, folds.fold == number
        own = columns[:, training]
        gram = np.einsum("asf,bsf->fab", own, own)
        gram += 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-12 * np.eye(
            2
        )
        slopes = np.linalg.solve(
            gram, np.einsum("asf,sf->fa", own, tested.truth[training])[..., None]
        )
        combined[test] = np.einsum("asf,fa->sf", columns[:, test], slopes[..., 0])
    return combined


def tabulate(
    target: Side,
    spots: MeasuredSpots,
    tested: Tested,
    given_counts: Tested,
    others: Mapping[str, Floats],
    folds: BlockFolds,
    seed: int,
) -> pd.DataFrame:
    """Make the table, a row per feature, the smallest p first."""
    sums = {"": BlockSums.of(folds.block, tested.truth, tested.predicted)} | {
        name: BlockSums.of(folds.block, tested.truth, one) for name, one in others.items()
    }
    weights = resampled(int(folds.block.max()) + 1, seed, _N_DRAWS)
    drawn = {name: one.correlations(weights) for name, one in sums.items()}
    r = {name: one.correlations()[0] for name, one in sums.items()}
    alone = np.stack([np.nan_to_num(r[name], nan=-np.inf) for name in ALONE])
    best = alone.argmax(axis=0)
    columns = np.arange(len(best))
    of_best = np.stack([drawn[name] for name in ALONE])[best, :, columns].T
    table = pd.DataFrame(index=target.names[tested.chosen].astype(str).rename("feature"))
    table["n_spots"] = len(spots.points)
    table["n_detected"] = target.detected()[tested.chosen]
    table["r"] = tested.r
    table["r_low"], table["r_high"] = interval(drawn[""])
    table["p"], table["q"] = tested.p, benjamini_hochberg(tested.p)
    table["r_given_counts"], table["p_given_counts"] = given_counts.r, given_counts.p
    table["q_given_counts"] = benjamini_hochberg(given_counts.p)
    table["best_baseline"] = np.array(ALONE)[best]
    table["gain"] = tested.r - alone[best, columns]
    table["gain_low"], table["gain_high"] = interval(drawn[""] - of_best)
    for name in others:
        table[f"r_{name}"] = r[name]
    table["gain_neighbors"] = r[BOTH] - r[NEIGHBORS]
    low, high = interval(drawn[BOTH] - drawn[NEIGHBORS])
    table["gain_neighbors_low"], table["gain_neighbors_high"] = low, high
    order = np.lexsort((-table["r"], table["p"]))
    return table.iloc[order]
