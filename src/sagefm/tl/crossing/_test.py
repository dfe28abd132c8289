"""Predict features out of blocks, and compare the correlations with those of null maps."""

from dataclasses import dataclass

import numpy as np

from sagefm._progress import counted
from sagefm._types import Floats, Positions, Reals, Singles
from sagefm.stats.blocked_ridge import BlockedRidge
from sagefm.stats.blocks import BlockFolds
from sagefm.stats.shifts import NullMaps
from sagefm.tl.crossing._predictors import Predictors
from sagefm.tl.crossing._removal import Removal


@dataclass(frozen=True)
class Tested:
    """How well features of a modality are predicted.

    Attributes
    ----------
    chosen
        Numbers of the features.
    removal
        What is removed.
    truth, predicted
        Spots × features, without these.
    r, p
        Correlation of the two, and the fraction of null maps that are predicted as well.
    """

    chosen: Positions
    removal: Removal
    truth: Singles
    predicted: Singles
    r: Floats
    p: Floats


def predict_and_test(
    predictors: Predictors,
    values: Floats,
    chosen: Positions,
    folds: BlockFolds,
    maps: NullMaps,
    removal: Removal,
    what: str,
) -> Tested:
    """Predict each feature, and its null maps in the same way.

    Parameters
    ----------
    values
        Spots × features.
    chosen
        Numbers of the features, to be kept.
    removal
        What is removed from predictors, features and null maps beforehand.
    what
        What is done, for the progress.
    """
    ridge = BlockedRidge(lambda training: removal(predictors.features(training)), folds)
    truth = removal(values).astype(np.float32)
    predicted = ridge.predict(truth)
    r = correlate(truth, predicted)
    p = np.ones(len(r))
    for number in counted(range(len(r)), what):
        exceeded = 0
        for drawn in maps.draw(truth[:, number]):
            null = removal(drawn)
            exceeded += int((correlate(null, ridge.predict(null)) >= r[number]).sum())
        p[number] = (1 + exceeded) / (1 + maps.n_maps)
    return Tested(chosen, removal, truth, predicted, r, p)


def correlate(a: Reals, b: Reals) -> Floats:
    """Correlate columns; 0 where one of the two does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    both = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    product = np.einsum("ij,ij->j", a, b)
    return np.asarray(np.divide(product, both, out=np.zeros(len(both)), where=both > 1e-9 * len(a)))
