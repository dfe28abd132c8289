"""The second modality of slides: the features that all of them have, and means over spots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._types import Bools, Floats, Positions, Reals
from sagefm.pp.modalities import Modality, modality
from sagefm.stats.components import scores, scores_of_many
from sagefm.stats.sampling import is_many
from sagefm.tl._layout import N_NEAREST, Layout
from sagefm.tl._views import AnyViews

if TYPE_CHECKING:
    from anndata import AnnData

LEAST_FEATURES = 2
"""One feature has no profile: what is left of it in a spot's composition is nothing."""


@dataclass(frozen=True)
class SecondModality:
    """A second modality of one slide or of several.

    Attributes
    ----------
    name
        As the user calls it.
    slides
        Of each slide, the features that all slides have.
    """

    name: str
    slides: Sequence[Modality]

    @classmethod
    def of(cls, slides: "Mapping[str, AnnData]", name: str) -> Self:
        """Find the second modality of slides.

        Raises
        ------
        InputError
            A slide lacks it, or no spot of it was measured; the slides have fewer than two features
            in common.
        """
        found = []
        for title, slide in slides.items():
            try:
                found.append(modality(slide, name))
            except InputError as error:
                raise InputError(f"{title}: {error}" if len(slides) > 1 else str(error)) from error
            if not found[-1].measured.any():
                place = f"{title}: " if len(slides) > 1 else ""
                raise InputError(f"{place}obsm[{found[-1].key!r}]: no spot was measured")
        every = [one.counts.columns.astype(str) for one in found]
        common = sorted(set(every[0]).intersection(*every[1:]))
        if len(common) < LEAST_FEATURES:
            raise InputError(
                f"{name}: the slides have {len(common)} features in common ({few(common)}), and "
                f"{LEAST_FEATURES} are needed; name them alike"
                if len(found) > 1
                else f"{name}: has {len(common)} feature, and {LEAST_FEATURES} are needed"
            )
        if lacking := set().union(*every) - set(common):
            logger.warning(
                "%s: %d features that not all slides have are left out (%s)",
                name, len(lacking), few(sorted(lacking)),
            )  # fmt: skip
        # Before they are normalized: the same counts of a spot have the same values on all slides.
        return cls(name, [replace(one, counts=one.counts[common]) for one in found])

    @property
    def features(self) -> list[str]:
        """The features that all slides have, sorted."""
        return self.slides[0].counts.columns.astype(str).tolist()

    @cached_property
    def values(self) -> Floats:
        """Spots of all slides × features: normalized, NaN where a spot was not measured."""
        return np.concatenate([one.normalized().to_numpy(dtype=np.float64) for one in self.slides])

    def halved(self, seed: int, order: Positions) -> Self:
        """Draw a random half of the counts, for spots in an order; others are not measured."""
        rng = np.random.default_rng(seed)
        counts = np.concatenate([one.counts.to_numpy(dtype=np.float64) for one in self.slides])
        own = counts[order]
        drawn = rng.binomial(np.nan_to_num(own).astype(np.int64), 0.5)
        half = np.full(counts.shape, np.nan)
        half[order] = np.where(np.isnan(own), np.nan, drawn)
        ends = np.cumsum([len(one.counts) for one in self.slides])[:-1]
        halves = []
        for one, values in zip(self.slides, np.split(half, ends), strict=True):
            table = one.counts.copy()
            table[:] = values
            halves.append(replace(one, counts=table))
        return replace(self, slides=halves)


def missing_rows(values: Reals) -> Bools:
    """Find the rows with a missing value."""
    return np.asarray(np.isnan(values).any(axis=1), dtype=np.bool_)


def mean_of_measured(operator: csr_matrix, values: Reals) -> Floats:
    """Average rows by an operator, without those that are NaN; NaN where it meets no others."""
    known = ~missing_rows(values)
    weight = operator @ known.astype(np.float64)
    total = operator @ np.where(known[:, None], values, 0.0)
    # Weights of averages are at least 1 in a hundred: less is rounding.
    there = weight > 1e-6
    return np.where(there[:, None], total / np.where(there, weight, 1.0)[:, None], np.nan)


def filled(values: Floats) -> Floats:
    """Replace rows that are NaN by the mean of the others: they say nothing."""
    unknown = missing_rows(values)
    return np.where(unknown[:, None], values[~unknown].mean(axis=0), values)


class SecondViews(AnyViews):
    """What the second modality says of every spot of a tissue.

    A spot that was not measured has the mean of the nearest that were.

    Parameters
    ----------
    tissue
        Sorted spots.
    values
        Spots of all slides × features.
    centered
        As for the views of the expression.
    """

    def __init__(self, tissue: Layout, values: Floats, *, centered: bool) -> None:
        super().__init__(tissue, centered=centered)
        self._many = is_many(len(tissue))
        self._values = _imputed(tissue, values[tissue.order])

    @cached_property
    def spots(self) -> Floats:
        """Spots × features."""
        return self._center(self._values)

    def residuals(self, n_nearest: int) -> Reals:
        """Average how spots deviate from the mean of their batch."""
        return self.smoothed(n_nearest)

    def _scores(self, values: Reals, n_components: int) -> Reals:
        return (scores_of_many if self._many else scores)(values, n_components)

    def _center(self, values: Reals) -> Floats:
        centered = np.empty(values.shape)
        for rows in self.groups:
            centered[rows] = values[rows] - values[rows].mean(axis=0)
        return centered


def _imputed(tissue: Layout, values: Floats) -> Floats:
    """Replace what was not measured by the mean of the measured spots around."""
    for n_nearest in (7, N_NEAREST):
        unknown = missing_rows(values)
        if unknown.any():
            around = mean_of_measured(tissue.mean(0, n_nearest)[unknown], values)
            values = values.copy()
            values[unknown] = around
    return filled(values)
