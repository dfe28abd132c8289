"""Views of a section: components that travel from patient to patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl.annotation._features import (
    Features,
    SectionFeatures,
    SpotFeatures,
    column_means,
    sampled,
    subsample,
    variable_columns,
)

_MAX_COMPONENTS = 50
_OF_PREDICTED = 20
"""Components of what the model predicts."""
_SPOTS_PER_COMPONENT = 5
"""Labeled spots for each component: with few, the later components are noise."""
_MAX_SPOTS = 20_000
"""Spots that components are fitted to."""
_MAX_SPOTS_ALL_GENES = 4096
"""The same where all genes take part."""
_ZERO = 1e-9


@dataclass(frozen=True)
class PlainView:
    """Components of variable genes, or of an embedding.

    Attributes
    ----------
    columns
        Genes of the vocabulary, or columns of an embedding.
    reduction
        To principal components.
    centered
        Whether the mean of its section is subtracted from a spot.
    """

    columns: Positions
    reduction: WhitenedPCA
    centered: bool

    def __call__(self, section: SpotFeatures) -> Floats:
        """Compute spots × components."""
        return self.reduction(
            section.centered(self.columns)
            if self.centered
            else section.filled(self.columns, self.reduction.center)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        return {"columns": self.columns, **_of(self.reduction), "centered": _flag(self.centered)}

    @classmethod
    def fit(
        cls, sections: Sequence[SectionFeatures], n_components: int, *, centered: bool, seed: int
    ) -> Self:
        """Fit components to all spots."""
        columns = variable_columns(sections)
        fill = column_means(sections, columns)
        values = [s.centered(columns) if centered else s.filled(columns, fill) for s in sections]
        reduction = WhitenedPCA.fit(subsample(values, _MAX_SPOTS, seed), n_components, seed)
        return cls(columns, reduction, centered)


@dataclass(frozen=True)
class StandardizedView:
    """Components of the smoothed expression of all genes, each standardized in its section.

    Genes that a section lacks, or that are constant in it, are zero: as on its average.
    """

    columns: Positions
    reduction: WhitenedPCA

    def __call__(self, section: SpotFeatures) -> Floats:
        """Compute spots × components, without the dense matrix of all genes."""
        axes = np.zeros((len(section.measured), self.reduction.axes.shape[1]))
        axes[self.columns] = self.reduction.axes * _scale(section, self.columns)[:, None]
        origin = section.moments.mean @ axes + self.reduction.center @ self.reduction.axes
        values: Any = section.values
        return np.asarray(section.operator @ (values @ axes) - origin)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        return {"columns": self.columns, **_of(self.reduction)}

    @classmethod
    def fit(cls, sections: Sequence[SectionFeatures], n_components: int, *, seed: int) -> Self:
        """Fit components to a sample of the spots, of the genes that all sections have."""
        common = np.logical_and.reduce([section.measured for section in sections])
        columns = np.flatnonzero(common)
        drawn = sampled([len(s.rows) for s in sections], _MAX_SPOTS_ALL_GENES, seed)
        values = []
        for section, rows in zip(sections, drawn, strict=True):
            smoothed: Any = section.smoothed
            some = smoothed[rows][:, columns].toarray() - section.moments.mean[columns]
            values.append((some * _scale(section, columns)).astype(np.float32))
        reduction = WhitenedPCA.fit(np.concatenate(values), n_components, seed)
        return cls(columns, reduction)


@dataclass(frozen=True)
class PredictedView:
    """Components of the marker genes as the model predicts them."""

    reduction: WhitenedPCA

    def __call__(self, section: SpotFeatures) -> Floats:
        """Compute spots × components."""
        return self.reduction(section.predicted)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        return _of(self.reduction)

    @classmethod
    def fit(cls, sections: Sequence[SectionFeatures], n_components: int, *, seed: int) -> Self:
        """Fit components to all spots."""
        values = subsample([section.predicted for section in sections], _MAX_SPOTS, seed)
        return cls(WhitenedPCA.fit(values, n_components, seed))


@dataclass(frozen=True)
class ScoresView:
    """Scores of marker sets as they are."""

    def __call__(self, section: SpotFeatures) -> Floats:
        """Get spots × marker sets."""
        return section.scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        return {"as_is": _flag(True)}


View: TypeAlias = PlainView | StandardizedView | PredictedView | ScoresView


def fit_views(
    sections: Sequence[SectionFeatures],
    n_labeled: int,
    features: Features,
    *,
    centered: bool,
    seed: int,
) -> tuple[dict[str, View], list[tuple[str, ...]]]:
    """Fit the views that go with features, and say which are side by side in a classifier."""
    n = max(n_labeled // _SPOTS_PER_COMPONENT, 2)
    if features != "combined":
        plain = PlainView.fit(sections, min(_MAX_COMPONENTS, n), centered=centered, seed=seed)
        return {features: plain}, [(features,)]
    views: dict[str, View] = {
        "expression": StandardizedView.fit(sections, min(_MAX_COMPONENTS, n), seed=seed),
        "predicted": PredictedView.fit(sections, min(_OF_PREDICTED, n), seed=seed),
        "scores": ScoresView(),
    }
    return views, [("expression", "predicted"), ("expression", "scores")]


def view_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> View:
    """Create a view from what its ``arrays`` returned."""
    if "as_is" in arrays:
        return ScoresView()
    reduction = WhitenedPCA(arrays["center"], arrays["axes"])
    if "columns" not in arrays:
        return PredictedView(reduction)
    if "centered" in arrays:
        return PlainView(arrays["columns"], reduction, bool(arrays["centered"]))
    return StandardizedView(arrays["columns"], reduction)


def _scale(section: SpotFeatures, columns: Positions) -> Floats:
    """Get what columns are multiplied by: zero for genes that a section lacks."""
    spread = section.moments.spread[columns]
    known = section.measured[columns] & (spread > _ZERO)
    return np.where(known, 1 / np.where(known, spread, 1), 0)


def _of(reduction: WhitenedPCA) -> dict[str, NDArray[Any]]:
    return {"center": reduction.center, "axes": reduction.axes}


def _flag(value: bool) -> NDArray[np.int64]:
    return np.array(int(value), dtype=np.int64)
