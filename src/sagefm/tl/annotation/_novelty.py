"""How much a spot differs from the spots of the training slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions, Singles
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.reference import ReferenceSpots
from sagefm.tl.annotation._features import (
    SectionFeatures,
    column_means,
    subsample,
    variable_columns,
)

_N_COMPONENTS = 20
_N_FOLDS = 10
_MAX_SPOTS = 4096
"""Spots that components are fitted to."""
_ZERO = 1e-6
_PREFIX = "familiar."
"""Of the arrays of the reference spots, in a file."""


@dataclass(frozen=True)
class NoveltyReference:
    """The training spots as a reference, not centered: centering hides which tissue a slide is.

    Components alone miss what other tissue has and the training tissue does not. So the length of
    the residual that they leave of a spot is one more coordinate.

    Attributes
    ----------
    columns
        Genes, or columns of an embedding.
    fill
        Values for genes that a section lacks.
    reduction
        To at most 20 principal components.
    median_residual
        Median log length of the residual. Less is not unusual: the spots that components are
        fitted to have less.
    spots
        Training spots, in these components and the log length of the residual.
    """

    columns: Positions
    fill: Floats
    reduction: WhitenedPCA
    median_residual: float
    spots: ReferenceSpots

    @classmethod
    def fit(cls, sections: Sequence[SectionFeatures], seed: int) -> Self:
        """Keep training spots, and how far those of each patient lie from the other patients."""
        columns = variable_columns(sections)
        fill = column_means(sections, columns)
        values = [section.filled(columns, fill) for section in sections]
        patients = [section.patient for section in sections]
        reduction = WhitenedPCA.fit(subsample(values, _MAX_SPOTS, seed), _N_COMPONENTS, seed)
        residuals = _residuals_across_patients(values, patients, seed)
        if residuals is None:
            residuals = [_residual(reduction, z) for z in values]
        median = float(np.median(np.concatenate(residuals)))
        coordinates = [
            np.column_stack([reduction(z), np.maximum(residual, median)])
            for z, residual in zip(values, residuals, strict=True)
        ]
        spots = ReferenceSpots.learn(
            coordinates, patients, n_components=_N_COMPONENTS + 1, seed=seed
        )
        return cls(columns, fill, reduction, median, spots)

    def novelty(self, section: SectionFeatures) -> Floats:
        """Compute for each spot the fraction of training spots that are less unusual."""
        values = section.filled(self.columns, self.fill)
        residual = np.maximum(_residual(self.reduction, values), self.median_residual)
        return self.spots.novelty(np.column_stack([self.reduction(values), residual]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        arrays = {
            "columns": self.columns,
            "fill": self.fill,
            "center": self.reduction.center,
            "axes": self.reduction.axes,
            "usual": np.array([self.median_residual]),
        }
        return arrays | {_PREFIX + name: array for name, array in self.spots.arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Create it from what :meth:`arrays` returned."""
        spots = {name.removeprefix(_PREFIX): array for name, array in arrays.items()
                 if name.startswith(_PREFIX)}  # fmt: skip
        return cls(
            arrays["columns"], arrays["fill"], WhitenedPCA(arrays["center"], arrays["axes"]),
            float(arrays["usual"][0]), ReferenceSpots.from_arrays(spots),
        )  # fmt: skip


def _residual(reduction: WhitenedPCA, values: Singles) -> Floats:
    """Compute the log length of what the components leave of each spot."""
    explained = (reduction(values) ** 2 / (reduction.axes**2).sum(axis=0)).sum(axis=1)
    squares = ((values - reduction.center) ** 2).sum(axis=1) - explained
    return np.asarray(np.log(np.maximum(squares, _ZERO)) / 2)


def _residuals_across_patients(
    values: Sequence[Singles], patients: Sequence[str], seed: int
) -> list[Floats] | None:
    """Compute residuals with components of other patients; None if there is one patient.

    Components leave less of the very spots that they were fitted to.
    """
    names = list(dict.fromkeys(patients))
    if len(names) == 1:
        return None
    residuals: dict[int, Floats] = {}
    for held_out in [names[i::_N_FOLDS] for i in range(min(_N_FOLDS, len(names)))]:
        training = [z for z, name in zip(values, patients, strict=True) if name not in held_out]
        reduction = WhitenedPCA.fit(subsample(training, _MAX_SPOTS, seed), _N_COMPONENTS, seed)
        for i in [i for i, name in enumerate(patients) if name in held_out]:
            residuals[i] = _residual(reduction, values[i])
    return [residuals[i] for i in range(len(values))]
