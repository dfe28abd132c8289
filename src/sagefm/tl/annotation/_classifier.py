"""A classifier of spots: columns, principal components, and a linear probe or a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions, Singles
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import Classifier, balanced, fit_frequencies, fit_linear, fit_network
from sagefm.tl.annotation._features import (
    SectionFeatures,
    column_means,
    subsample,
    variable_columns,
)

Method = Literal["linear", "mlp"]

_MAX_COMPONENTS = 50
_SPOTS_PER_COMPONENT = 5
"""Labeled spots for each component: with few, the later components are noise."""
_C = 0.1
_LEARNING_RATE = 2e-3
_MAX_EPOCHS = 20
_MAX_SPOTS = 20_000
"""Spots that components are fitted to."""


@dataclass(frozen=True)
class SpotClassifier:
    """A classifier of spots with the features that it is applied to.

    Attributes
    ----------
    columns
        Genes of the vocabulary, or columns of an embedding.
    reduction
        To at most 50 principal components.
    classifier
        From components to a score for each of the `fitted_classes`.
    fitted_classes
        Codes of the classes in the training spots.
    n_classes
        Number of all classes; the others score minus infinity.
    centered
        Whether the mean of its section is subtracted from a spot.
    """

    columns: Positions
    reduction: WhitenedPCA
    classifier: Classifier
    fitted_classes: Positions
    n_classes: int
    centered: bool

    def scores(self, section: SectionFeatures) -> Floats:
        """Compute spots × classes, logits."""
        fill = None if self.centered else self.reduction.center
        logits = self.classifier.logits(self.reduction(_values(section, self.columns, fill)))
        scores = np.full((len(logits), self.n_classes), -np.inf)
        scores[:, self.fitted_classes] = logits
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        arrays: dict[str, NDArray[Any]] = {
            "columns": self.columns,
            "center": self.reduction.center,
            "axes": self.reduction.axes,
            "known": self.fitted_classes,
        }
        for i, (weights, biases) in enumerate(self.classifier.layers):
            arrays |= {f"layers.{i}.weights": weights, f"layers.{i}.biases": biases}
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], n_classes: int, *, centered: bool
    ) -> Self:
        """Create it from what :meth:`arrays` returned."""
        n_layers = sum(name.endswith(".weights") for name in arrays)
        layers = tuple(
            (arrays[f"layers.{i}.weights"], arrays[f"layers.{i}.biases"]) for i in range(n_layers)
        )
        reduction = WhitenedPCA(arrays["center"], arrays["axes"])
        return cls(
            arrays["columns"], reduction, Classifier(layers), arrays["known"], n_classes, centered
        )


def fit_classifier(
    sections: Sequence[SectionFeatures],
    codes: Sequence[Positions],
    n_classes: int,
    method: Method,
    *,
    centered: bool,
    seed: int,
) -> SpotClassifier:
    """Fit a classifier to the labeled spots, all classes weighted equally.

    Parameters
    ----------
    sections, codes
        Sections, and the class of each of their spots (-1: not labeled). Components are fitted to
        all spots.
    centered
        See :class:`SpotClassifier`.
    """
    columns = variable_columns(sections)
    fill = None if centered else column_means(sections, columns)
    values = [_values(section, columns, fill) for section in sections]
    labeled = [code >= 0 for code in codes]
    n_labeled = sum(int(mask.sum()) for mask in labeled)
    n_components = min(_MAX_COMPONENTS, max(n_labeled // _SPOTS_PER_COMPONENT, 2))
    reduction = WhitenedPCA.fit(subsample(values, _MAX_SPOTS, seed), n_components, seed)
    x = np.concatenate([reduction(z[mask]) for z, mask in zip(values, labeled, strict=True)])
    y = np.concatenate([code[mask] for code, mask in zip(codes, labeled, strict=True)])
    classes, y = np.unique(y, return_inverse=True)
    weights = balanced(y, len(classes))
    if len(classes) == 1:
        classifier = fit_frequencies(x, y)
    elif method == "linear":
        classifier = fit_linear(x, y, C=_C, sample_weights=weights)
    else:
        classifier = fit_network(
            x, y, learning_rate=_LEARNING_RATE, max_epochs=_MAX_EPOCHS, sample_weights=weights,
            seed=seed,
        )  # fmt: skip
    return SpotClassifier(
        columns, reduction, classifier, classes.astype(np.int64), n_classes, centered
    )


def _values(section: SectionFeatures, columns: Positions, fill: Floats | None) -> Singles:
    return section.centered(columns) if fill is None else section.filled(columns, fill)
