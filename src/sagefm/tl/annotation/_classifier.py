"""A classifier of spots: views, their components, and a linear probe or a network on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from sagefm._types import Codes, Floats, Positions
from sagefm.stats.probe import Classifier, fit_frequencies, fit_linear, fit_network
from sagefm.tl.annotation._features import Features, SectionFeatures, SpotFeatures
from sagefm.tl.annotation._views import View, fit_views, view_from_arrays

Method = Literal["linear", "mlp"]

_C = 0.1
_LEARNING_RATE = 2e-3
_MAX_EPOCHS = 20


@dataclass(frozen=True)
class SpotClassifier:
    """Classifiers of spots, whose log probabilities are averaged, with what they are applied to.

    Attributes
    ----------
    views
        By name, what is made of the features of a section.
    parts
        Names of the views that a classifier has side by side, and the classifier: from these to a
        score for each of the `fitted_classes`.
    fitted_classes
        Codes of the classes in the training spots.
    n_classes
        Number of all classes; the others score minus infinity.
    """

    views: Mapping[str, View]
    parts: tuple[tuple[tuple[str, ...], Classifier], ...]
    fitted_classes: Positions
    n_classes: int

    def scores(self, section: SpotFeatures) -> Floats:
        """Compute spots × classes, logits."""
        seen = {name: view(section) for name, view in self.views.items()}
        logits = [
            log_softmax(classifier.logits(np.hstack([seen[name] for name in names])), axis=1)
            for names, classifier in self.parts
        ]
        scores = np.full((len(section.rows), self.n_classes), -np.inf)
        scores[:, self.fitted_classes] = np.mean(logits, axis=0)
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        arrays: dict[str, NDArray[Any]] = {"known": self.fitted_classes}
        for name, view in self.views.items():
            arrays |= {f"views.{name}.{key}": array for key, array in view.arrays().items()}
        for names, classifier in self.parts:
            for i, (weights, biases) in enumerate(classifier.layers):
                prefix = f"parts.{'+'.join(names)}.{i}"
                arrays |= {f"{prefix}.weights": weights, f"{prefix}.biases": biases}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_classes: int) -> Self:
        """Create it from what :meth:`arrays` returned."""
        views: dict[str, dict[str, NDArray[Any]]] = {}
        layers: dict[str, dict[str, NDArray[Any]]] = {}
        for path, array in arrays.items():
            kind, _, rest = path.partition(".")
            name, _, key = rest.partition(".")
            if kind in ("views", "parts"):
                (views if kind == "views" else layers).setdefault(name, {})[key] = array
        parts = []
        for name, own in layers.items():
            pairs = ((own[f"{i}.weights"], own[f"{i}.biases"]) for i in range(len(own) // 2))
            parts.append((tuple(name.split("+")), Classifier(tuple(pairs))))
        made = {name: view_from_arrays(own) for name, own in views.items()}
        return cls(made, tuple(sorted(parts)), arrays["known"], n_classes)


def fit_classifier(
    sections: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    n_classes: int,
    method: Method,
    features: Features,
    *,
    centered: bool,
    seed: int,
) -> SpotClassifier:
    """Fit a classifier to the labeled spots, weighted by :func:`weights_of`.

    Parameters
    ----------
    sections, codes
        Sections, and the class of each of their spots (-1: not labeled). Components are fitted to
        all spots.
    centered
        Whether the mean of its section is subtracted from a spot. Combined features are
        standardized per section in any case.
    """
    labeled = [code >= 0 for code in codes]
    y = np.concatenate([code[mask] for code, mask in zip(codes, labeled, strict=True)])
    classes, y = np.unique(y, return_inverse=True)
    patients = [np.full(m.sum(), s.patient) for s, m in zip(sections, labeled, strict=True)]
    weights = weights_of(y, np.concatenate(patients))
    views, sides = fit_views(sections, len(y), features, centered=centered, seed=seed)
    seen = {
        name: np.concatenate([view(s)[m] for s, m in zip(sections, labeled, strict=True)])
        for name, view in views.items()
    }
    parts = []
    for names in sides:
        x = np.hstack([seen[name] for name in names])
        parts.append((names, _fit(x, y, weights, method, seed)))
    return SpotClassifier(views, tuple(sorted(parts)), classes.astype(np.int64), n_classes)


def _fit(x: Floats, y: Codes, weights: Floats, method: Method, seed: int) -> Classifier:
    if len(np.unique(y)) == 1:
        return fit_frequencies(x, y)
    if method == "linear":
        return fit_linear(x, y, C=_C, sample_weights=weights, standardize=True)
    return fit_network(
        x, y, learning_rate=_LEARNING_RATE, max_epochs=_MAX_EPOCHS, sample_weights=weights,
        standardize=True, seed=seed,
    )  # fmt: skip


def weights_of(codes: Codes, patients: NDArray[Any]) -> Floats:
    """Weight spots so that a class counts as many times as there are patients that have it.

    Rare regions count as much as large ones; what a single patient has, and may be a trait of that
    patient, counts less than what all have. Within a class a patient with four times as many spots
    counts twice. The mean is 1.
    """
    weights = np.zeros(len(codes))
    for code in np.unique(codes):
        members = codes == code
        names, of_spot, sizes = np.unique(
            patients[members], return_inverse=True, return_counts=True
        )
        own = 1 / np.sqrt(sizes[of_spot])
        weights[members] = len(names) * own / own.sum()
    return np.asarray(weights / weights.mean())
