"""Predict features out of blocks, and compare the correlations with those of null maps."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sagefm._progress import counted
from sagefm._types import Floats, Positions, Reals, Singles
from sagefm.stats.blocked_ridge import BlockedRidge
from sagefm.stats.blocks import BlockFolds
from sagefm.stats.shifts import NullMaps
from sagefm.tl.crossing._predictors import Predictors, orthonormal

_R = TypeVar("_R", Floats, Singles)


@dataclass(frozen=True)
class Tested:
    """How well features of a modality are predicted.

    Attributes
    ----------
    chosen
        Numbers of the features.
    basis
        Spots × functions, orthonormal, that are removed.
    truth, predicted
        Spots × features, without these.
    r, p
        Correlation of the two, and the fraction of null maps that are predicted as well.
    """

    chosen: Positions
    basis: Floats
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
    removed: Floats,
    what: str,
) -> Tested:
    """Predict each feature, and its null maps in the same way.

    Parameters
    ----------
    values
        Spots × features.
    chosen
        Numbers of the features, to be kept.
    removed
        Spots × functions that are removed from predictors, features and null maps beforehand.
    what
        What is done, for the progress.
    """
    basis = orthonormal(removed)
    ridge = BlockedRidge(lambda training: without(basis, predictors.features(training)), folds)
    truth = without(basis, values).astype(np.float32)
    predicted = ridge.predict(truth)
    r = correlate(truth, predicted)
    narrow = basis.astype(np.float32)
    p = np.ones(len(r))
    for number in counted(range(len(r)), what):
        exceeded = 0
        for drawn in maps.draw(truth[:, number]):
            null = without(narrow, drawn)
            exceeded += int((correlate(null, ridge.predict(null)) >= r[number]).sum())
        p[number] = (1 + exceeded) / (1 + maps.n_maps)
    return Tested(chosen, basis, truth, predicted, r, p)


def without(basis: _R, values: _R) -> _R:
    """Remove functions from columns."""
    removed: _R = values - basis @ (basis.T @ values)
    return removed


def correlate(a: Reals, b: Reals) -> Floats:
    """Correlate columns; 0 where one of the two does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    both = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    product = np.einsum("ij,ij->j", a, b)
    return np.divide(product, both, out=np.zeros(len(both)), where=both > 1e-9 * len(a))
