"""Features of spots: expression around them, scores of marker sets, what a model predicts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._types import Bools, Floats, Positions
from sagefm.pp.counts import coordinates
from sagefm.pp.markers import marker_sets
from sagefm.pp.neighborhood import average
from sagefm.pp.sections import sections_of
from sagefm.stats.moments import ColumnMoments

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.streamed import AnyAligned

Features = Literal["combined", "expression", "embedding"]

N_AVERAGED = 7
"""The spot itself and, on a hexagonal grid, the first ring."""
_TARGET_SUM = 1e4
_MAX_GENES = 2000
_BLOCK = 512
"""Spots whose whole expression is predicted together."""
_GROUPS = ("general", "process")
"""Of marker sets: those that are no organ's own."""
_ZERO = 1e-9


@dataclass(frozen=True)
class SpotFeatures(ABC):
    """Features of all spots of a section, or of some: what an annotator is applied to."""

    rows: Positions
    """Rows of the spots in the object that they come from."""
    values: csr_matrix | Floats
    """Normalized log1p expression (genes of the vocabulary) of the spots and, where these are some
    of the section, of their neighbors; or the embedding of the spots."""
    measured: Bools
    """Which columns the section has."""
    operator: csr_matrix
    """Averages `values` over each spot and its six nearest; not used for an embedding."""
    scores: Floats
    """Spots × marker sets, standardized; without columns unless features are combined."""
    predicted: Floats
    """Spots × marker genes, expression as the model predicts it, standardized; or no columns."""

    @property
    @abstractmethod
    def moments(self) -> ColumnMoments:
        """Of each column of the smoothed expression, or of the embedding, over the section."""

    def raw(self, columns: Positions) -> Floats:
        """Get columns of the expression averaged over 7 spots, or of the embedding as it is."""
        some = self.values[:, columns]
        if isinstance(some, csr_matrix):
            return np.asarray((self.operator @ some).toarray())
        return np.asarray(some)

    def centered(self, columns: Positions) -> Floats:
        """Get columns minus their mean over the section; zero for genes that it lacks."""
        values = self.raw(columns)
        return np.asarray((values - self._mean(values, columns)) * self.measured[columns])

    def filled(self, columns: Positions, fill: Floats) -> Floats:
        """Get columns, with `fill` for genes that the section lacks."""
        return np.where(self.measured[columns], self.raw(columns), fill)

    def _mean(self, values: Floats, columns: Positions) -> Floats:
        """Get the mean over the section of columns, whose `values` are those of the spots here."""
        return self.moments.mean[columns]


@dataclass(frozen=True)
class SectionFeatures(SpotFeatures):
    """Features of all spots of one section of one patient, in memory."""

    name: str
    patient: str
    points: Floats
    """Coordinates of the spots."""

    @cached_property
    def smoothed(self) -> "csr_matrix | Floats":
        """Expression averaged over 7 spots, or the embedding as it is."""
        if isinstance(self.values, csr_matrix):
            return csr_matrix(self.operator @ self.values)
        return self.values

    @cached_property
    def moments(self) -> ColumnMoments:
        """Of each column of the smoothed expression, or of the embedding."""
        return ColumnMoments.of(self.smoothed)

    def raw(self, columns: Positions) -> Floats:
        """Get columns of the smoothed expression, or of the embedding."""
        values: Any = self.smoothed[:, columns]
        return np.asarray(values.toarray() if isinstance(values, csr_matrix) else values)

    def _mean(self, values: Floats, columns: Positions) -> Floats:
        return np.asarray(values.mean(axis=0))


def section_features(
    slides: "Mapping[str, AnnData]",
    model: "SageFM",
    features: Features,
    *,
    patient_key: str,
    layer: str | None,
    slide_key: str | None,
) -> Iterator[SectionFeatures]:
    """Compute the features of each section of each patient."""
    for name, slide in slides.items():
        for section in sections_of({name: slide}, slide_key=slide_key, patient_key=patient_key):
            rows = _by_place(section.rows, slide)
            spots = slide[rows]
            try:
                aligned = model.prepare(spots, layer=layer)
            except InputError as error:
                raise InputError(f"{section.name}: {error}" if name else str(error)) from error
            values: csr_matrix | Floats
            if features == "embedding":
                values = model.embed(aligned).astype(np.float64)
                measured = np.ones(values.shape[1], dtype=bool)
            else:
                values, measured = normalize(aligned.counts), aligned.measured
            operator = average(aligned.neighbors[:, :N_AVERAGED]).astype(np.float64)
            scores = predicted = np.zeros((len(rows), 0))
            if features == "combined":
                markers = MarkerGenes.of(model)
                scores = standardized(markers.set_means(values, operator, measured))
                predicted = np.zeros((len(rows), len(markers.genes)))
                for at, expression in markers.predict(model, aligned):
                    predicted[at] = expression
                predicted = standardized(predicted) * measured[markers.genes]
            yield SectionFeatures(
                rows, values, measured, operator, scores, predicted,
                section.name, section.patient, coordinates(spots),
            )  # fmt: skip


def _by_place(rows: Positions, slide: "AnnData") -> Positions:
    """Order rows by place, so that no result depends on their order in the object."""
    points = coordinates(slide)[rows]
    return rows[np.lexsort(points.T[::-1])]


def normalize(counts: csr_matrix) -> csr_matrix:
    """Compute log1p of counts per 10,000 counts on the vocabulary."""
    exact = counts.data.astype(np.float64)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    total = np.bincount(rows, weights=exact, minlength=counts.shape[0])
    normalized = np.log1p(exact / total[rows] * _TARGET_SUM)
    return csr_matrix((normalized, counts.indices, counts.indptr), shape=counts.shape)


def standardized(values: Floats, moments: ColumnMoments | None = None) -> Floats:
    """Scale columns to mean 0 and standard deviation 1; constant ones to 0.

    Parameters
    ----------
    moments
        Of the whole section, if `values` are some of its spots.
    """
    moments = moments or ColumnMoments.of(values)
    spread = moments.spread
    return np.asarray((values - moments.mean) / np.where(spread > _ZERO, spread, 1))


@dataclass(frozen=True)
class MarkerGenes:
    """The genes of all marker sets that are in a vocabulary."""

    genes: Positions
    """In the vocabulary."""
    sets: Sequence[Positions]
    """For each set which of `genes` it has."""

    @classmethod
    def of(cls, model: "SageFM") -> Self:
        """Find them."""
        place = {symbol: i for i, symbol in enumerate(model.vocabulary.symbols)}
        sets = [
            [place[gene] for gene in genes if gene in place]
            for genes in marker_sets(_GROUPS).values()
        ]
        genes = np.unique(np.array([gene for members in sets for gene in members], dtype=np.int64))
        return cls(genes, [np.searchsorted(genes, members).astype(np.int64) for members in sets])

    def set_means(
        self,
        values: Any,
        operator: csr_matrix,
        measured: Bools,
        moments: ColumnMoments | None = None,
    ) -> Floats:
        """Average the standardized smoothed expression of the measured genes of each set.

        Parameters
        ----------
        values, operator, measured
            As in :class:`SpotFeatures`.
        moments
            Of the genes over the section, if the spots are some of it.
        """
        z = standardized((operator @ values[:, self.genes]).toarray(), moments)
        kept = [members[measured[self.genes][members]] for members in self.sets]
        means = [z[:, own].mean(axis=1) if len(own) else np.zeros(len(z)) for own in kept]
        return np.column_stack(means)

    def predict(
        self, model: "SageFM", slide: "AnyAligned", spots: Positions | None = None
    ) -> Iterator[tuple[slice | Positions, Floats]]:
        """Predict them in each spot, as log1p of counts per 10,000, some spots at a time."""
        everything = [np.arange(len(model.vocabulary))]
        for block in model.predict_masked(
            slide, everything, where=None, spots=spots, block_size=_BLOCK
        ):
            counts = np.expm1(block.log1p.astype(np.float64))
            total = counts[:, slide.measured].sum(axis=1, keepdims=True)
            yield block.spots, np.log1p(counts[:, self.genes] / total * _TARGET_SUM)


def variable_columns(sections: Sequence[SectionFeatures]) -> Positions:
    """Choose the 2,000 genes that vary most within sections; all columns of an embedding.

    The criterion is the mean variance over the sections, zero where a section lacks the gene.
    """
    n_columns = sections[0].values.shape[1]
    if not isinstance(sections[0].values, csr_matrix):
        return np.arange(n_columns)
    variance = np.zeros(n_columns)
    for section in sections:
        values: Any = section.values
        squares = values.multiply(values).mean(axis=0).A1
        variance += squares - values.mean(axis=0).A1 ** 2
    ranked = np.argsort(-variance, kind="stable")[:_MAX_GENES]
    return np.sort(ranked[variance[ranked] > 0])


def column_means(sections: Sequence[SectionFeatures], columns: Positions) -> Floats:
    """Average columns over the sections that have them, each section with the same weight."""
    sums, n = np.zeros(len(columns)), np.zeros(len(columns))
    for section in sections:
        sums += section.raw(columns).mean(axis=0) * section.measured[columns]
        n += section.measured[columns]
    return sums / np.maximum(n, 1)


def subsample(values: Sequence[Floats], max_spots: int, seed: int) -> Floats:
    """Draw at most so many spots, equally many of each section where it has them."""
    drawn = sampled([len(z) for z in values], max_spots, seed)
    return np.concatenate([z[rows] for z, rows in zip(values, drawn, strict=True)])


def sampled(sizes: Sequence[int], max_spots: int, seed: int) -> list[Positions]:
    """Draw rows of sections, as for :func:`subsample`."""
    rng, per_section = np.random.default_rng(seed), max(max_spots // len(sizes), 1)
    return [
        np.arange(n) if n <= per_section else np.sort(rng.choice(n, per_section, False))
        for n in sizes
    ]


def label_codes(labels: "pd.Series[str]", classes: Sequence[str]) -> Positions:
    """Encode labels by their position in the classes, -1 for any other."""
    code_of = {name: code for code, name in enumerate(classes)}
    return np.array([code_of.get(label, -1) for label in labels], dtype=np.int64)
