"""From what spots are like to scores of classes: a linear head, or a small network."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl.annotation._features import SectionFeatures, informative

Head = Literal["linear", "mlp"]

_COMPONENTS = 50
_PER_COMPONENT = 5
"""Labeled spots that a component needs: with few, the later ones are noise to them."""
_PENALTY = 10.0
"""Of the linear head: the inverse of scikit-learn's C, on components of standard deviation 1."""
_HIDDEN = 64
_MOST_SPOTS = 20_000
"""Spots that components are learned from."""


@dataclass(frozen=True)
class Reader:
    """A head with all that it reads through.

    Attributes
    ----------
    columns
        Genes of the vocabulary, or columns of an embedding.
    reduction
        To 50 principal components at most.
    layers
        Weights and biases, a ReLU between them; the last gives a score per class in `known`.
    known
        Codes of the classes that it learned.
    n_classes
        How many there are in all; those that it did not learn score minus infinity.
    centered
        Whether it reads a spot beside the mean of its slide, or as it is.
    """

    columns: Positions
    reduction: WhitenedPCA
    layers: tuple[tuple[Floats, Floats], ...]
    known: Positions
    n_classes: int
    centered: bool

    def scores(self, view: SectionFeatures) -> Floats:
        """Score the classes: spots × classes, logits."""
        x = self.reduction(_read(view, self.columns, self.centered, self.reduction.center))
        for i, (weights, biases) in enumerate(self.layers):
            x = (np.maximum(x, 0) if i else x) @ weights + biases
        found = np.full((len(x), self.n_classes), -np.inf)
        found[:, self.known] = x
        return found


def fit_reader(
    views: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    n_classes: int,
    head: Head,
    *,
    balanced: bool,
    centered: bool,
    seed: int,
) -> Reader:
    """Learn a head from the labeled spots; the components from all spots of these slides.

    Parameters
    ----------
    views, codes
        Slides, and the class of each of their spots (-1: not labeled).
    balanced
        Whether each class counts as much as any other, or each spot.
    centered
        See :class:`Reader`.
    """
    columns = informative(views)
    fill = None if centered else means_of(views, columns)
    parts = [_read(view, columns, centered, fill) for view in views]
    n_labeled = sum(int((own >= 0).sum()) for own in codes)
    n_components = min(_COMPONENTS, max(n_labeled // _PER_COMPONENT, 2))
    reduction = WhitenedPCA.fit(some_spots(parts, _MOST_SPOTS, seed), n_components, seed)
    known = [own >= 0 for own in codes]
    x = np.concatenate([reduction(z[own]) for z, own in zip(parts, known, strict=True)])
    y = np.concatenate([own[own >= 0] for own in codes])
    classes, y = np.unique(y, return_inverse=True)
    layers = _constant(x) if len(classes) == 1 else _FIT[head](x, y, balanced, seed)
    return Reader(columns, reduction, layers, classes.astype(np.int64), n_classes, centered)


def means_of(views: Sequence[SectionFeatures], columns: Positions) -> Floats:
    """Average columns over slides, each counting alike where it has the gene."""
    sums, n = np.zeros(len(columns)), np.zeros(len(columns))
    for view in views:
        sums += view.read(columns).mean(axis=0) * view.measured[columns]
        n += view.measured[columns]
    return sums / np.maximum(n, 1)


def _read(
    view: SectionFeatures, columns: Positions, centered: bool, fill: Floats | None
) -> NDArray[np.float32]:
    return view.relative(columns) if centered or fill is None else view.absolute(columns, fill)


def class_weights(y: Positions, balanced: bool) -> Floats:
    """Weigh spots so that every class counts alike, or not at all."""
    sizes = np.bincount(y)
    return (len(y) / (len(sizes) * sizes))[y] if balanced else np.ones(len(y))


def some_spots(parts: Sequence[NDArray[np.float32]], most: int, seed: int) -> NDArray[np.float32]:
    """Take at most so many spots, as many of each slide as there is room for."""
    chance, share = np.random.default_rng(seed), max(most // len(parts), 1)
    return np.concatenate(
        [z if len(z) <= share else z[np.sort(chance.choice(len(z), share, False))] for z in parts]
    )


def _constant(x: Floats) -> tuple[tuple[Floats, Floats], ...]:
    return ((np.zeros((x.shape[1], 1)), np.zeros(1)),)


def _linear(
    x: Floats, y: Positions, balanced: bool, seed: int
) -> tuple[tuple[Floats, Floats], ...]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1 / _PENALTY, max_iter=1000)
    fitted.fit(x, y, sample_weight=class_weights(y, balanced))
    return (_spelled(fitted.coef_.T, fitted.intercept_),)


def _mlp(x: Floats, y: Positions, balanced: bool, seed: int) -> tuple[tuple[Floats, Floats], ...]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    fitted = MLPClassifier(
        (_HIDDEN,), alpha=1e-2, batch_size=min(32, len(y)), learning_rate_init=2e-3, max_iter=20,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few rounds are what keeps it small
        fitted.fit(x, y, sample_weight=class_weights(y, balanced))
    first, last = zip(fitted.coefs_, fitted.intercepts_, strict=True)
    return (_as_floats(*first), _spelled(*last))


def _spelled(weights: Any, biases: Any) -> tuple[Floats, Floats]:
    """Give two classes a score each, where one score stands for both."""
    weights, biases = _as_floats(weights, biases)
    if weights.shape[1] > 1:
        return weights, biases
    return np.hstack([0 * weights, weights]), np.array([0.0, biases[0]])


def _as_floats(weights: Any, biases: Any) -> tuple[Floats, Floats]:
    return np.asarray(weights, dtype=np.float64), np.asarray(biases, dtype=np.float64)


_FIT = {"linear": _linear, "mlp": _mlp}
