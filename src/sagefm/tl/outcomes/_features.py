"""Sets of features of patients, from their slides and from clinical columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes import FeatureSet
from sagefm.stats.outcomes.folds import log_cpm
from sagefm.stats.outcomes.targets import N_COMPONENTS
from sagefm.stats.pca import WhitenedPCA
from sagefm.tl.outcomes._clinical import Clinical
from sagefm.tl.outcomes._labels import label_features
from sagefm.tl.outcomes._programs import program_scores, program_weights
from sagefm.tl.outcomes._slides import MIN_GENES, OutcomeSlide
from sagefm.tl.patients import drawn_spots, pool, quantiles

if TYPE_CHECKING:
    from sagefm.pp.vocabulary import Vocabulary

CLINICAL, PSEUDOBULK = "clinical", "pseudobulk"
MEAN, QUANTILES, PROGRAMS = "embedding mean", "embedding quantiles", "gene programs"
_LEAST = 1e-9
_BANDS = ("low", "middle", "high")


@dataclass(frozen=True)
class SlidesOfPatients:
    """Slides, and which patient each belongs to."""

    slides: Sequence[OutcomeSlide]
    patients: Codes
    """Row of the table for each slide."""
    n_patients: int

    @property
    def sizes(self) -> Codes:
        """Number of slides of each patient."""
        return np.bincount(self.patients, minlength=self.n_patients)

    def average(self, of_slides: Floats) -> Floats:
        """Average slides × features over the slides of each patient."""
        member = self.patients == np.arange(self.n_patients)[:, None]
        return np.asarray((member / member.sum(axis=1, keepdims=True)) @ of_slides)


def feature_sets(
    cohort: SlidesOfPatients,
    clinical: Clinical,
    keys: Sequence[str],
    programs: pd.DataFrame | None,
    vocabulary: "Vocabulary",
    seed: int,
) -> list[FeatureSet]:
    """Make all sets of features, clinical ones and pseudobulk first.

    Without pseudobulk where slides have too few genes in common.
    """
    expression = _expression(cohort)
    sets = [FeatureSet(CLINICAL, clinical.features, fit=clinical)] if clinical.features else []
    if len(expression.columns) >= MIN_GENES:
        sets.append(_pseudobulk(expression.to_numpy()))
    sets.append(_mean(cohort))
    sets.append(_quantiles(cohort, seed))
    for key in keys:
        of_slides = label_features([one.labels[key] for one in cohort.slides])
        for kind, table in of_slides.items():
            values = cohort.average(table.to_numpy())
            if np.ptp(values, axis=0).max(initial=0) > 0:
                sets.append(FeatureSet(f"{kind} of {key}", list(map(str, table)), values))
    if programs is not None:
        weights = program_weights(programs, vocabulary, expression.columns)
        scores = partial(program_scores, expression.to_numpy(), weights.to_numpy())
        sets.append(FeatureSet(PROGRAMS, list(map(str, weights)), fit=scores))
    return sets


def _expression(cohort: SlidesOfPatients) -> pd.DataFrame:
    """Compute log1p counts per million of each patient, whose slides are summed."""
    sums = []
    for code in range(cohort.n_patients):
        own = [
            one.summary.sums
            for one, patient in zip(cohort.slides, cohort.patients, strict=True)
            if patient == code
        ]
        sums.append(pd.concat(own, axis=1, join="inner").sum(axis=1))
    return log_cpm(sums)


def _pseudobulk(cpm: Floats) -> FeatureSet:
    n_components = min(N_COMPONENTS, len(cpm) - 1)
    centered = cpm - cpm.mean(axis=0)
    products = centered @ centered.T

    def components(training: Bools) -> Floats:
        """Compute principal components of the training patients, from products of patients."""
        means = products[:, training].mean(axis=1)
        around = products[:, training] - means[:, None] - means[training] + means[training].mean()
        squares, axes = np.linalg.eigh(around[training])
        squares, axes = squares[::-1][:n_components], axes[:, ::-1][:, :n_components]
        found = np.zeros((len(cpm), n_components))
        kept = squares > _LEAST * max(squares[0], _LEAST)
        found[:, : kept.sum()] = around @ axes[:, kept] / np.sqrt(squares[kept])
        return found

    names = [f"PC{i + 1}" for i in range(n_components)]
    return FeatureSet(PSEUDOBULK, names, fit=components, scaled=False)


def _mean(cohort: SlidesOfPatients) -> FeatureSet:
    means = np.concatenate([one.summary.z for one in cohort.slides]).astype(np.float64)
    values = cohort.average(means)
    return FeatureSet(MEAN, [f"z{i + 1}" for i in range(values.shape[1])], values, scaled=False)


def _quantiles(cohort: SlidesOfPatients, seed: int) -> FeatureSet:
    spots = [one.spots for one in cohort.slides]
    drawn = drawn_spots(spots, seed)
    width = min(N_COMPONENTS, spots[0].shape[1])

    def of_patients(training: Bools) -> Floats:
        rows = [z for z, patient in zip(drawn, cohort.patients, strict=True) if training[patient]]
        reduction = WhitenedPCA.fit(np.concatenate(rows), N_COMPONENTS)
        features = partial(quantiles, reduction=reduction)
        return pool(spots, cohort.patients, cohort.n_patients, features)

    names = [f"component {i + 1}, {band}" for band in _BANDS for i in range(width)]
    return FeatureSet(QUANTILES, names, fit=of_patients, scaled=False)
