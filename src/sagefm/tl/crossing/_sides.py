"""The two modalities of slides, on the spots where both are measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import block_diag, csr_matrix

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Bools, Codes, Floats, Positions
from sagefm.pp.counts import coordinates
from sagefm.pp.expression import shared_expression
from sagefm.pp.modalities import Modality, modality
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.sections import section_codes
from sagefm.stats.sums import row_sums
from sagefm.tl.crossing._predictors import Predictors

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

N_NEIGHBORS = 15
LEAST_DETECTED = 20
"""Minimum number of spots with counts of a feature."""
LEAST_SPOTS = 75
"""Minimum number of spots: five folds of a block."""
N_GENES = 100
"""Genes that are predicted from another modality, if none are named."""


@dataclass(frozen=True)
class MeasuredSpots:
    """Measured spots of all slides, one slide after the other.

    Attributes
    ----------
    rows
        For each slide the row numbers of its spots, by coordinates, so that results do not depend
        on the order of the slide.
    points, sections
        Of each spot.
    neighbors
        For each slide its neighborhoods among the measured spots, the center first.
    """

    rows: list[Positions]
    points: Floats
    sections: Codes
    neighbors: list[Positions]

    @classmethod
    def of(
        cls, slides: "Mapping[str, AnnData]", found: Sequence[Modality], slide_key: str | None
    ) -> "MeasuredSpots":
        """Find the neighborhoods.

        Raises
        ------
        InputError
            No coordinates, or too few spots.
        """
        rows, points, neighbors = [], [], []
        sections: list[Codes] = []
        for (name, slide), one in zip(slides.items(), found, strict=True):
            try:
                own = _sorted(coordinates(slide), slide.obs_names, one.measured)
                places = coordinates(slide)[own]
                codes = pd.factorize(section_codes(slide, slide_key)[own])[0]
                neighbors.append(nearest(places, N_NEIGHBORS, codes))
            except InputError as error:
                raise InputError(f"{name}: {error}" if name else str(error)) from error
            rows.append(own)
            points.append(places)
            first = sections[-1].max() + 1 if sections else 0
            sections.append(first + np.unique(codes, return_inverse=True)[1])
        if (n := sum(map(len, points))) < LEAST_SPOTS:
            raise InputError(
                f"{numbered(n, 'spot')} with both modalities are too few for blocks of spots; give "
                f"{LEAST_SPOTS} or more"
            )
        return cls(rows, np.concatenate(points), np.concatenate(sections), neighbors)

    def smooth(self, values: Floats, *, center: bool) -> Floats:
        """Average spots × features over neighborhoods."""
        return self._average(center=center) @ values

    def smooth_transposed(self, values: Floats) -> Floats:
        """Multiply spots × functions by the transposed operator, without centers."""
        return self._average(center=False).T @ values

    def _average(self, *, center: bool) -> csr_matrix:
        return csr_matrix(block_diag([average(near, center=center) for near in self.neighbors]))


def _sorted(places: Floats, names: pd.Index, measured: Bools) -> Positions:
    """Sort the measured spots by coordinates, and those at the same place by name."""
    own = np.flatnonzero(measured)
    at = places[own]
    return own[np.lexsort((names[own].astype(str).to_numpy(dtype=str), at[:, 1], at[:, 0]))]


@dataclass(frozen=True)
class Side:
    """A modality on the spots.

    Attributes
    ----------
    names
        Its features.
    counts, normalized
        For each slide spots × features.
    sizes
        For each slide the counts of each spot.
    """

    names: pd.Index
    counts: list[csr_matrix]
    normalized: list[csr_matrix]
    sizes: list[Floats]

    def columns(self, chosen: Positions) -> Floats:
        """Get normalized features of all spots."""
        return np.concatenate(
            [np.asarray(x[:, chosen].toarray(), dtype=np.float64) for x in self.normalized]
        )

    def detected(self) -> Positions:
        """Count the spots that have counts of each feature."""
        return np.asarray(np.sum([np.asarray((x > 0).sum(axis=0)).ravel() for x in self.counts], 0))


def transcriptome(slides: "Mapping[str, AnnData]", spots: MeasuredSpots, layer: str | None) -> Side:
    """Get the genes that all slides measured."""
    shared = shared_expression(list(slides.values()), layer=layer)
    counts = [csr_matrix(x[own]) for x, own in zip(shared.counts, spots.rows, strict=True)]
    normalized = [csr_matrix(x[own]) for x, own in zip(shared.normalized, spots.rows, strict=True)]
    return Side(pd.Index(shared.genes), counts, normalized, [row_sums(x) for x in counts])


def modalities(slides: "Mapping[str, AnnData]", with_: str) -> list[Modality]:
    """Get the second modality of each slide, with the features that all slides have.

    Raises
    ------
    InputError
        A slide lacks it, or they have no feature in common.
    """
    found = []
    for name, slide in slides.items():
        try:
            found.append(modality(slide, with_))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
    names = found[0].counts.columns
    names = names[[all(name in one.counts for one in found) for name in names]]
    if not len(names):
        raise InputError(f"{with_}: the slides have no feature in common; use one panel")
    if most := max(one.counts.shape[1] for one in found) - len(names):
        logger.warning(f"{numbered(most, 'feature')} that not all slides have are left out")
    # Before they are normalized: the same counts of a spot have the same values on all slides.
    return [replace(one, counts=one.counts[names]) for one in found]


def second_side(found: Sequence[Modality], spots: MeasuredSpots) -> Side:
    """Get the features of the second modality."""
    raw, normalized = [], []
    for one, own in zip(found, spots.rows, strict=True):
        raw.append(one.counts.iloc[own].to_numpy(dtype=np.float32))
        normalized.append(one.normalized().iloc[own])
    return Side(
        found[0].counts.columns,
        [csr_matrix(x) for x in raw],
        [csr_matrix(x.to_numpy(dtype=np.float32)) for x in normalized],
        [x.sum(axis=1, dtype=np.float64) for x in raw],
    )


def predictors_of(
    side: Side,
    spots: MeasuredSpots,
    slides: "Mapping[str, AnnData]",
    model: "SageFM | None",
    layer: str | None,
    slide_key: str | None,
) -> Predictors:
    """Reduce the predicting modality; with a model its embedding is added."""
    others = []
    if model is not None:
        embedded = [
            model.embed(model.open(slide, layer=layer, slide_key=slide_key))
            for slide in slides.values()
        ]
        others.append(np.concatenate([x[own] for x, own in zip(embedded, spots.rows, strict=True)]))
    return Predictors.of(side.normalized, spots.neighbors, side.sizes, others)


def chosen_features(
    side: Side, spots: MeasuredSpots, features: Sequence[str] | None, most: int | None
) -> Positions:
    """Choose the features that can be predicted: named, or all that are detected often enough.

    Parameters
    ----------
    most
        If no features are named, at most so many: those that are most similar in neighbors.

    Raises
    ------
    InputError
        A feature is not there, or nothing is left.
    """
    wanted = np.arange(len(side.names))
    if features is not None:
        asked = list(dict.fromkeys([features] if isinstance(features, str) else map(str, features)))
        if not asked:
            raise InputError("features: there are none; name one at least")
        if missing := [name for name in asked if name not in side.names]:
            raise InputError(f"features: there is no {few(missing)}, but {few(side.names, 5)}")
        wanted = np.asarray(side.names.get_indexer(pd.Index(asked)), dtype=np.int64)
    seen = side.detected()[wanted] >= LEAST_DETECTED
    seen[seen] = side.columns(wanted[seen]).std(axis=0) > 1e-6
    if not seen.any():
        raise InputError(
            f"no feature is detected in {LEAST_DETECTED} spots and varies between them; there is "
            "nothing to predict"
        )
    if not seen.all() and (features is not None or most is None):
        left = few(side.names[wanted[~seen]])
        logger.warning(
            f"{numbered(int((~seen).sum()), 'feature')} detected in fewer than {LEAST_DETECTED} "
            f"spots, or the same in all, are left out ({left})"
        )
    wanted = wanted[seen]
    if most is not None and features is None and len(wanted) > most:
        wanted = np.sort(
            wanted[np.argsort(-_smoothness(side, spots, wanted), kind="stable")[:most]]
        )
    return wanted


def _smoothness(side: Side, spots: MeasuredSpots, wanted: Positions) -> Floats:
    """Correlate features with their means over the neighbors, some at a time."""
    found = []
    for some in np.array_split(wanted, -(-len(wanted) // 1000)):
        values = side.columns(some)
        around = spots.smooth(values, center=False)
        values, around = values - values.mean(axis=0), around - around.mean(axis=0)
        norms = np.linalg.norm(values, axis=0) * np.linalg.norm(around, axis=0)
        found.append((values * around).sum(axis=0) / np.where(norms > 0, norms, 1))
    return np.concatenate(found)
