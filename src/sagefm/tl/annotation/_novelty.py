"""How much a spot differs from the spots of the training slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sagefm._types import Floats, Positions
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.reference import ReferenceSpots
from sagefm.tl.annotation._features import (
    SectionFeatures,
    SpotFeatures,
    column_means,
    subsample,
    variable_columns,
)

_N_COMPONENTS = 20
_N_FOLDS = 10
_N_PATIENT_FOLDS = 5
"""Fewer, since each fits components again for each of the ten."""
_MAX_SPOTS = 4096
"""Spots that components are fitted to."""
_ZERO = 1e-6
_TAIL = 0.9
"""Quantile of the distances by which patients are compared: labels of a patient go wrong already
where a part of its tissue is unusual."""
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
    patient_distances
        For each training patient the 0.9 quantile of the distances of its spots from a reference
        of the other patients. Empty for one patient.
    """

    columns: Positions
    fill: Floats
    reduction: WhitenedPCA
    median_residual: float
    spots: ReferenceSpots
    patient_distances: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(cls, sections: Sequence[SectionFeatures], seed: int) -> Self:
        """Keep training spots, and how far each patient lies from the other patients."""
        reference = cls._fit(sections, seed)
        distances = []
        for held_out in _folds([section.patient for section in sections], _N_PATIENT_FOLDS):
            others = cls._fit([s for s in sections if s.patient not in held_out], seed)
            for name in held_out:
                own = [others.distances(s) for s in sections if s.patient == name]
                distances.append(_tail(own))
        return replace(reference, patient_distances=np.array(distances))

    @classmethod
    def _fit(cls, sections: Sequence[SectionFeatures], seed: int) -> Self:
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

    def distances(self, section: SpotFeatures) -> Floats:
        """Compute how far each spot is from the training spots."""
        values = section.filled(self.columns, self.fill)
        residual = np.maximum(_residual(self.reduction, values), self.median_residual)
        return self.spots.distance(np.column_stack([self.reduction(values), residual]))

    def novelty(self, distances: Floats) -> Floats:
        """Compute for each spot the fraction of training spots that are less unusual."""
        return self.spots.novelty_of(distances)

    def is_out_of_distribution(self, distances: Floats) -> bool:
        """Check whether a section is farther from the training patients than they are apart.

        A patient that is like P training patients is the farthest about once in P + 1 times. False
        for one training patient: nothing says how far patients are from each other.
        """
        of_patients = self.patient_distances
        return len(of_patients) > 0 and _tail([distances]) > float(of_patients.max())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Get named arrays, to be written."""
        arrays = {
            "columns": self.columns,
            "fill": self.fill,
            "center": self.reduction.center,
            "axes": self.reduction.axes,
            "usual": np.array([self.median_residual]),
            "patient_distances": self.patient_distances,
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
            arrays["patient_distances"],
        )  # fmt: skip


def _tail(distances: Sequence[Floats]) -> float:
    return float(np.quantile(np.concatenate(distances), _TAIL))


def _residual(reduction: WhitenedPCA, values: Floats) -> Floats:
    """Compute the log length of what the components leave of each spot."""
    explained = (reduction(values) ** 2 / (reduction.axes**2).sum(axis=0)).sum(axis=1)
    squares = ((values - reduction.center) ** 2).sum(axis=1) - explained
    return np.asarray(np.log(np.maximum(squares, _ZERO)) / 2)


def _residuals_across_patients(
    values: Sequence[Floats], patients: Sequence[str], seed: int
) -> list[Floats] | None:
    """Compute residuals with components of other patients; None if there is one patient.

    Components leave less of the very spots that they were fitted to.
    """
    residuals: dict[int, Floats] = {}
    for held_out in _folds(patients, _N_FOLDS):
        training = [z for z, name in zip(values, patients, strict=True) if name not in held_out]
        reduction = WhitenedPCA.fit(subsample(training, _MAX_SPOTS, seed), _N_COMPONENTS, seed)
        for i in [i for i, name in enumerate(patients) if name in held_out]:
            residuals[i] = _residual(reduction, values[i])
    return [residuals[i] for i in range(len(values))] if residuals else None


def _folds(patients: Sequence[str], max_folds: int) -> list[list[str]]:
    """Split patients into groups that are held out; none if there is one patient."""
    names = list(dict.fromkeys(patients))
    n_folds = min(max_folds, len(names)) if len(names) > 1 else 0
    return [names[i::n_folds] for i in range(n_folds)]
