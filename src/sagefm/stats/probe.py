"""Probes: logistic regression and a small network on features of samples."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from sagefm._types import Codes, Floats, Positions

N_HIDDEN = 64
_WEIGHT_DECAY = 1e-2
_BATCH_SIZE = 32
_MAX_ITER = 1000
_MIN_EARLY_STOPPING = 2
"""Samples of a class for early stopping: one to train on and one to validate with."""
_NEWTON_STEPS = 50
_MAX_GRADIENT = 1e-7
"""Largest entry of a gradient at which a fit has converged."""
_HALVINGS = 8
_RIDGE_OF_INTERCEPTS = 1e-9
"""Makes the Hessian definite: adding a number to all intercepts changes no probability."""

Layer = tuple[Floats, Floats]


@dataclass(frozen=True)
class Classifier:
    """Affine layers with a ReLU between them."""

    layers: tuple[Layer, ...]
    """Weights (inputs × outputs) and biases; the last layer gives a logit per class."""

    def logits(self, features: Floats) -> Floats:
        """Compute samples × classes."""
        for i, (weights, biases) in enumerate(self.layers):
            features = (np.maximum(features, 0) if i else features) @ weights + biases
        return features

    def probabilities(self, features: Floats) -> Floats:
        """Compute samples × classes; they sum to 1 over the classes."""
        return np.asarray(softmax(self.logits(features), axis=1))


def fit_frequencies(features: Floats, labels: Codes) -> Classifier:
    """Fit a classifier that predicts the frequencies of the classes for every sample."""
    biases = np.log(np.bincount(labels))
    return Classifier(((np.zeros((features.shape[1], len(biases))), biases),))


def fit_linear(
    features: Floats,
    labels: Codes,
    *,
    C: float = 1.0,
    sample_weights: Floats | None = None,
    standardize: bool = False,
) -> Classifier:
    """Fit a multinomial logistic regression with a squared penalty.

    Parameters
    ----------
    features
        Samples × features.
    labels
        Codes of at least two classes, each of which has a sample.
    C
        Inverse of the penalty, as in scikit-learn.
    sample_weights
        1 for each sample if not given.
    standardize
        Whether features are scaled to mean 0 and standard deviation 1 first.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, max_iter=_MAX_ITER)
    scaler = _fit(model, features, labels, sample_weights, standardize)
    return _classifier([(model.coef_.T, model.intercept_)], scaler)


def fit_network(
    features: Floats,
    labels: Codes,
    *,
    learning_rate: float,
    max_epochs: int,
    early_stopping: bool = False,
    sample_weights: Floats | None = None,
    standardize: bool = False,
    seed: int = 0,
) -> Classifier:
    """Fit a network with one hidden layer of 64 and weight decay 0.01.

    Parameters
    ----------
    features, labels, sample_weights, standardize
        As for :func:`fit_linear`.
    early_stopping
        Whether a tenth of the samples is held out and decides when to stop, unless a class is too
        small for that.
    seed
        Seed of the initial weights, the batches and the samples that are held out.
    """
    from sklearn.neural_network import MLPClassifier

    sizes = np.bincount(labels)
    large = sizes.min() >= _MIN_EARLY_STOPPING and 0.1 * len(labels) >= len(sizes)
    model = MLPClassifier(
        (N_HIDDEN,), alpha=_WEIGHT_DECAY, batch_size=min(_BATCH_SIZE, len(labels)),
        learning_rate_init=learning_rate, max_iter=max_epochs,
        early_stopping=bool(early_stopping and large), random_state=seed,
    )  # fmt: skip
    scaler = _fit(model, features, labels, sample_weights, standardize)
    return _classifier(list(zip(model.coefs_, model.intercepts_, strict=True)), scaler)


def _fit(
    model: Any, features: Floats, labels: Codes, sample_weights: Floats | None, standardize: bool
) -> Any:
    """Fit a model of scikit-learn; return the scaler of its features, or None."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features) if standardize else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is limited
        model.fit(
            scaler.transform(features) if scaler else features, labels, sample_weight=sample_weights
        )
    return scaler


def _classifier(layers: list[tuple[Any, Any]], scaler: Any) -> Classifier:
    """Put the scaling of features into the first layer, and give two classes a logit each."""
    arrays = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in layers]
    if scaler:
        weights, biases = arrays[0]
        weights = weights / scaler.scale_[:, None]
        arrays[0] = weights, biases - scaler.mean_ @ weights
    weights, biases = arrays[-1]
    if weights.shape[1] == 1:
        arrays[-1] = np.hstack([0 * weights, weights]), np.array([0.0, biases[0]])
    return Classifier(tuple(arrays))


@dataclass(frozen=True)
class Probes:
    """Linear probes of many labelings of the same samples."""

    weights: Floats
    """Labelings × classes × features."""
    intercepts: Floats
    """Labelings × classes."""

    def probabilities(self, features: Floats) -> Floats:
        """Compute labelings × samples × classes; they sum to 1 over the classes."""
        logits = features @ self.weights.swapaxes(1, 2) + self.intercepts[:, None]
        return np.asarray(softmax(logits, axis=-1))


def balanced(labels: Codes, n_classes: int) -> Floats:
    """Weight samples so that all classes count the same, and a sample 1 on average."""
    members = (labels[..., None] == np.arange(n_classes)).sum(axis=-2)
    weights = labels.shape[-1] / (n_classes * np.maximum(members, 1))
    return np.take_along_axis(weights, labels, axis=-1)


def fit_probes(features: Floats, labels: Codes, n_classes: int) -> Probes:
    """Fit a linear probe to each labeling, with balanced classes and C = 1.

    All are fitted at once by Newton's method, to the optimum of scikit-learn's
    ``LogisticRegression(C=1, class_weight="balanced")``: a fit there takes milliseconds, and
    permutations need thousands.

    Parameters
    ----------
    features
        Samples × features, or labelings × samples × features if they differ.
    labels
        Labelings × samples, codes of classes.
    n_classes
        Number of classes.
    """
    ones = np.concatenate([features, np.ones((*features.shape[:-1], 1))], axis=-1)
    targets = np.eye(n_classes)[labels]
    weights = balanced(labels, n_classes)
    # scikit-learn fits one set of weights to two classes; here each class has half of it, so that
    # the sum of squares is half as large.
    ridge = np.full(ones.shape[-1], 2.0 if n_classes == 2 else 1.0)
    ridge[-1] = _RIDGE_OF_INTERCEPTS
    solution = np.zeros((len(labels), n_classes, ones.shape[-1]))
    active = np.arange(len(labels))
    for _ in range(_NEWTON_STEPS):
        problem = _of(ones, active), targets[active], weights[active], ridge
        gradient, hessian = _derivatives(solution[active], *problem)
        remaining = np.abs(gradient).max(axis=(1, 2)) > _MAX_GRADIENT
        if not remaining.any():
            break
        active = active[remaining]
        flat = gradient[remaining].reshape(len(active), -1, 1)
        step = np.linalg.solve(hessian[remaining], flat).reshape(len(active), n_classes, -1)
        problem = _of(ones, active), targets[active], weights[active], ridge
        solution[active] = _line_search(solution[active], step, problem)
    return Probes(solution[:, :, :-1], solution[:, :, -1])


def _of(ones: Floats, active: Positions) -> Floats:
    """Get the features of some labelings, unless all have the same."""
    return ones[active] if ones.ndim == 3 else ones


def _loss(at: Floats, ones: Floats, targets: Floats, weights: Floats, ridge: Floats) -> Floats:
    logs = log_softmax(ones @ at.swapaxes(1, 2), axis=-1)
    error = -(weights * (targets * logs).sum(axis=-1)).sum(axis=-1)
    return np.asarray(error + 0.5 * (ridge * at**2).sum(axis=(1, 2)))


def _derivatives(
    at: Floats, ones: Floats, targets: Floats, weights: Floats, ridge: Floats
) -> tuple[Floats, Floats]:
    """Compute gradient (labelings × classes × features) and Hessian (labelings × both × both)."""
    p = softmax(ones @ at.swapaxes(1, 2), axis=-1)
    f, g = ("psf", "psg") if ones.ndim == 3 else ("sf", "sg")
    gradient = np.einsum(f"ps,psk,{f}->pkf", weights, p - targets, ones, optimize=True) + ridge * at
    curvature = weights[..., None, None] * (p[..., None] * (np.eye(p.shape[-1]) - p[..., None, :]))
    hessian = np.einsum(f"pskl,{f},{g}->pkflg", curvature, ones, ones, optimize=True)
    size = at.shape[1] * at.shape[2]
    return gradient, hessian.reshape(-1, size, size) + np.diag(np.tile(ridge, at.shape[1]))


def _line_search(
    at: Floats, step: Floats, problem: tuple[Floats, Floats, Floats, Floats]
) -> Floats:
    """Take the step, or the half, quarter, … of it that does not increase the loss."""
    before, size = _loss(at, *problem), np.ones(len(at))
    for _ in range(_HALVINGS):
        worse = _loss(at - size[:, None, None] * step, *problem) > before + 1e-12
        if not worse.any():
            break
        size[worse] /= 2
    return at - size[:, None, None] * step
