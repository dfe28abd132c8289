"""The probe: logistic regression with balanced classes, for many labelings of the same samples."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from sagefm._types import Codes, Floats

_STEPS = 50
_CONVERGED = 1e-7
"""Largest entry of a gradient at which a fit is done."""
_HALVINGS = 8
_TINY = 1e-9
"""Makes the Hessian definite: one number added to all intercepts changes nothing."""


@dataclass(frozen=True)
class Probes:
    """Fitted probes, one for each labeling."""

    weights: Floats
    """Labelings × classes × features."""
    intercepts: Floats
    """Labelings × classes."""

    def logits(self, features: Floats) -> Floats:
        """Get labelings × samples × classes."""
        return features @ self.weights.swapaxes(1, 2) + self.intercepts[:, None]

    def probabilities(self, features: Floats) -> Floats:
        """Get labelings × samples × classes, which sum to 1 over the classes."""
        return np.asarray(softmax(self.logits(features), axis=-1))


def balanced(labels: Codes, n_classes: int) -> Floats:
    """Weigh samples so that all classes weigh alike, and a sample 1 on average: as `labels`."""
    members = (labels[..., None] == np.arange(n_classes)).sum(axis=-2)
    weights = labels.shape[-1] / (n_classes * np.maximum(members, 1))
    return np.take_along_axis(weights, labels, axis=-1)


def penalty(n_classes: int) -> float:
    """Say what half the sum of squared weights is multiplied with, for C = 1.

    Two classes are learned as one set of weights, of which each class has half: its square is twice
    the sum of theirs.
    """
    return 2.0 if n_classes == 2 else 1.0


def fit_probes(features: Floats, labels: Codes, n_classes: int) -> Probes:
    """Fit one probe per labeling: multinomial, squared penalty, C = 1, no penalty on intercepts.

    All are fitted at once by Newton's method, to the optimum that scikit-learn's
    ``LogisticRegression(C=1, class_weight="balanced")`` has: a fit there takes milliseconds, and
    permutations need thousands.

    Parameters
    ----------
    features
        Samples × features.
    labels
        Labelings × samples, codes of classes.
    n_classes
        How many classes there are.
    """
    ones = np.column_stack([features, np.ones(len(features))])
    wanted = np.eye(n_classes)[labels]
    weight = balanced(labels, n_classes)
    ridge = np.full(ones.shape[1], penalty(n_classes))
    ridge[-1] = _TINY
    solution = np.zeros((len(labels), n_classes, ones.shape[1]))
    todo = np.arange(len(labels))
    for _ in range(_STEPS):
        given = (ones, wanted[todo], weight[todo], ridge)
        gradient, hessian = _slope(solution[todo], *given)
        going = np.abs(gradient).max(axis=(1, 2)) > _CONVERGED
        if not going.any():
            break
        todo, given = todo[going], (ones, wanted[todo[going]], weight[todo[going]], ridge)
        flat = gradient[going].reshape(len(todo), -1, 1)
        step = np.linalg.solve(hessian[going], flat).reshape(len(todo), n_classes, -1)
        solution[todo] = _descend(solution[todo], step, given)
    return Probes(solution[:, :, :-1], solution[:, :, -1])


def _loss(at: Floats, ones: Floats, wanted: Floats, weight: Floats, ridge: Floats) -> Floats:
    logs = log_softmax(ones @ at.swapaxes(1, 2), axis=-1)
    error = -(weight * (wanted * logs).sum(axis=-1)).sum(axis=-1)
    return np.asarray(error + 0.5 * (ridge * at**2).sum(axis=(1, 2)))


def _slope(
    at: Floats, ones: Floats, wanted: Floats, weight: Floats, ridge: Floats
) -> tuple[Floats, Floats]:
    """Get gradient (labelings × classes × features) and Hessian (labelings × both × both)."""
    p = softmax(ones @ at.swapaxes(1, 2), axis=-1)
    gradient = np.einsum("ps,psk,sf->pkf", weight, p - wanted, ones, optimize=True) + ridge * at
    bent = weight[..., None, None] * (p[..., None] * (np.eye(p.shape[-1]) - p[..., None, :]))
    hessian = np.einsum("pskl,sf,sg->pkflg", bent, ones, ones, optimize=True)
    size = at.shape[1] * at.shape[2]
    return gradient, hessian.reshape(-1, size, size) + np.diag(np.tile(ridge, at.shape[1]))


def _descend(at: Floats, step: Floats, given: tuple[Floats, Floats, Floats, Floats]) -> Floats:
    """Take Newton's step, or the half, quarter, … of it that does not lead up."""
    before, size = _loss(at, *given), np.ones(len(at))
    for _ in range(_HALVINGS):
        up = _loss(at - size[:, None, None] * step, *given) > before + 1e-12
        if not up.any():
            break
        size[up] /= 2
    return at - size[:, None, None] * step
