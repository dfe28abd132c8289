"""Ridge regression of many targets at once, each predicted out of spatial blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagefm._types import Bools, Floats, Positions, Singles
from sagefm.stats.blocks import BlockFolds

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Penalties that are tried, over the number of spots that are fitted to."""


@dataclass(frozen=True)
class _Inner:
    """A fold of the training spots, held out to choose the penalty."""

    held: Positions
    buffer: Positions
    eigenvalues: Singles
    axes: Singles
    gram: Singles
    """Of the held-out spots, along the axes."""
    n_fitted: int


@dataclass(frozen=True)
class _Outer:
    training: Positions
    features: Singles
    """Of the training spots, in their order."""
    eigenvalues: Singles
    axes: Singles
    inner: list[_Inner]
    test: Positions
    test_features: Singles
    """Along the axes."""


class BlockedRidge:
    """Predict targets in each fold from features, by ridge regressions on the other folds.

    The penalty of each target is chosen in the training spots, by their own folds. There is no
    intercept: features and targets must be centered.

    Parameters
    ----------
    features
        Training spots → features of all spots, of standard deviation about 1.
    folds
        Of the spots.
    """

    def __init__(self, features: Callable[[Bools], Floats], folds: BlockFolds) -> None:
        self._outer = [_prepare(features, folds, number) for number in range(len(folds))]

    def predict(self, targets: Singles) -> Singles:
        """Predict spots × targets, each spot by a fit that knows neither it nor its block."""
        predicted = np.empty_like(targets)
        for outer in self._outer:
            predicted[outer.test] = _predict(outer, targets)
        return predicted


def _prepare(features: Callable[[Bools], Floats], folds: BlockFolds, number: int) -> _Outer:
    training = ~folds.near[number]
    x = features(training).astype(np.float32)
    inner = []
    for other in sorted(set(range(len(folds))) - {number}):
        held = training & (folds.fold == other)
        fitted = training & ~folds.near[other]
        eigenvalues, axes = _axes(x[fitted])
        along = x[held] @ axes
        buffer = training & ~held & ~fitted
        inner.append(
            _Inner(
                _numbers(held, training), _numbers(buffer, training), eigenvalues, axes,
                along.T @ along, max(int(fitted.sum()), 1),
            )
        )  # fmt: skip
    eigenvalues, axes = _axes(x[training])
    test = np.flatnonzero(folds.fold == number)
    return _Outer(
        np.flatnonzero(training), x[training], eigenvalues, axes, inner, test, x[test] @ axes
    )


def _axes(x: Singles) -> tuple[Singles, Singles]:
    eigenvalues, axes = np.linalg.eigh(x.T.astype(np.float64) @ x)
    return np.maximum(eigenvalues, 0).astype(np.float32), axes.astype(np.float32)


def _numbers(chosen: Bools, among: Bools) -> Positions:
    """Find the numbers of the chosen spots among the training spots."""
    return np.flatnonzero(chosen[among])


def _predict(outer: _Outer, targets: Singles) -> Singles:
    y = targets[outer.training]
    total = outer.features.T @ y
    error = np.zeros((len(PENALTIES), y.shape[1]), dtype=np.float32)
    for inner in outer.inner:
        held = outer.features[inner.held].T @ y[inner.held]
        fitted = total - held - outer.features[inner.buffer].T @ y[inner.buffer]
        held, fitted = inner.axes.T @ held, inner.axes.T @ fitted
        for number, penalty in enumerate(PENALTIES):
            slopes = fitted / (inner.eigenvalues + penalty * inner.n_fitted)[:, None]
            error[number] += ((inner.gram @ slopes - 2 * held) * slopes).sum(axis=0)
    penalty = len(y) * np.asarray(PENALTIES, dtype=np.float32)[error.argmin(axis=0)]
    slopes = (outer.axes.T @ total) / (outer.eigenvalues[:, None] + penalty)
    return np.asarray(outer.test_features @ slopes)
