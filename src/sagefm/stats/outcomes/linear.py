"""Linear predictors of many labelings of the same patients, and ridge regression."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from sagefm._types import Floats

RIDGE = 1.0
"""Penalty: half of it times the sum of squared weights is added to the loss of all patients."""


@dataclass(frozen=True)
class LinearFits:
    """A linear predictor for each labeling."""

    weights: Floats
    """Labelings × outputs × features."""
    intercepts: Floats
    """Labelings × outputs."""

    def __call__(self, features: Floats) -> Floats:
        """Compute labelings × rows × outputs."""
        return np.asarray(
            np.matmul(features, self.weights.swapaxes(1, 2)) + self.intercepts[:, None]
        )

    def first(self) -> Self:
        """Get the fit of the first labeling alone."""
        return type(self)(self.weights[:1], self.intercepts[:1])


def fit_ridge(features: Floats, values: Floats, ridge: float = RIDGE) -> LinearFits:
    """Fit ridge regressions, with an intercept that is not penalized.

    Parameters
    ----------
    features
        Samples × features, or labelings × samples × features if they differ.
    values
        Labelings × samples.
    ridge
        Penalty of the squared weights.
    """
    center = features.mean(axis=-2, keepdims=True)
    x = features - center
    means = values.mean(axis=1, keepdims=True)
    turned = x.swapaxes(-1, -2)
    gram = np.matmul(turned, x) + ridge * np.eye(x.shape[-1])
    if x.ndim == 2:
        weights = np.linalg.solve(gram, turned @ (values - means).T).T
    else:
        weights = np.linalg.solve(gram, np.matmul(turned, (values - means)[..., None]))[..., 0]
    return LinearFits(weights[:, None], means - offsets(weights, center))


def offsets(weights: Floats, center: Floats) -> Floats:
    """Predict the center of the features (… × 1 × features): labelings × 1."""
    return np.asarray((weights * center.reshape(-1, weights.shape[1])).sum(axis=1, keepdims=True))
