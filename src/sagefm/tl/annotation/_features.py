"""Features of spots: expression around them, scores of marker sets, what a model predicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._types import Bools, Floats, Positions
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.counts import coordinates
from sagefm.pp.markers import marker_sets
from sagefm.pp.neighborhood import average
from sagefm.pp.sections import sections_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sagefm.model import SageFM

Features = Literal["combined", "expression", "embedding"]

_N_AVERAGED = 7
"""The spot itself and, on a hexagonal grid, the first ring."""
_TARGET_SUM = 1e4
_MAX_GENES = 2000
_BLOCK = 512
"""Spots whose whole expression is predicted together."""
_GROUPS = ("general", "process")
"""Of marker sets: those that are no organ's own."""
_ZERO = 1e-9


@dataclass(frozen=True)
class SectionFeatures:
    """Features of the spots of one section of one patient."""

    name: str
    patient: str
    rows: Positions
    """Rows of its spots in the object that it comes from."""
    values: csr_matrix | Floats
    """Spots × columns: normalized log1p expression (genes of the vocabulary), or the embedding."""
    measured: Bools
    """Which columns the section has."""
    operator: csr_matrix
    """Averages over each spot and its six nearest."""
    points: Floats
    """Coordinates of the spots."""
    scores: Floats
    """Spots × marker sets, standardized; without columns unless features are combined."""
    predicted: Floats
    """Spots × marker genes, expression as the model predicts it, standardized; or no columns."""

    @cached_property
    def smoothed(self) -> "csr_matrix | Floats":
        """Expression averaged over 7 spots, or the embedding as it is."""
        if isinstance(self.values, csr_matrix):
            return csr_matrix(self.operator @ self.values)
        return self.values

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each column of the smoothed expression."""
        smoothed: Any = self.smoothed
        mean = np.asarray(smoothed.mean(axis=0)).ravel()
        squares = np.asarray(smoothed.multiply(smoothed).mean(axis=0)).ravel()
        return mean, np.sqrt(np.maximum(squares - mean**2, 0))

    def raw(self, columns: Positions) -> Floats:
        """Get columns of the smoothed expression, or of the embedding."""
        values: Any = self.smoothed[:, columns]
        return np.asarray(values.toarray() if isinstance(values, csr_matrix) else values)

    def centered(self, columns: Positions) -> Floats:
        """Get columns minus their mean over the section; zero for genes that it lacks."""
        values = self.raw(columns)
        return np.asarray((values - values.mean(axis=0)) * self.measured[columns])

    def filled(self, columns: Positions, fill: Floats) -> Floats:
        """Get columns, with `fill` for genes that the section lacks."""
        return np.where(self.measured[columns], self.raw(columns), fill)


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
                values, measured = _normalize(aligned.counts), aligned.measured
            operator = average(aligned.neighbors[:, :_N_AVERAGED]).astype(np.float64)
            scores = predicted = np.zeros((len(rows), 0))
            if features == "combined":
                scores = _marker_scores(values, operator, model, measured)
                predicted = _predicted(model, aligned)
            yield SectionFeatures(
                section.name, section.patient, rows, values, measured, operator,
                coordinates(spots), scores, predicted,
            )  # fmt: skip


def _by_place(rows: Positions, slide: "AnnData") -> Positions:
    """Order rows by place, so that no result depends on their order in the object."""
    points = coordinates(slide)[rows]
    return rows[np.lexsort(points.T[::-1])]


def _normalize(counts: csr_matrix) -> csr_matrix:
    """Compute log1p of counts per 10,000 counts on the vocabulary."""
    exact = counts.data.astype(np.float64)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    total = np.bincount(rows, weights=exact, minlength=counts.shape[0])
    normalized = np.log1p(exact / total[rows] * _TARGET_SUM)
    return csr_matrix((normalized, counts.indices, counts.indptr), shape=counts.shape)


def standardized(values: Floats) -> Floats:
    """Scale columns to mean 0 and standard deviation 1; constant ones to 0."""
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > _ZERO, spread, 1))


def _marker_genes(model: "SageFM") -> tuple[Positions, list[Positions]]:
    """Find the genes of all marker sets in a vocabulary, and which of them each set has."""
    place = {symbol: i for i, symbol in enumerate(model.vocabulary.symbols)}
    sets = [
        [place[gene] for gene in genes if gene in place] for genes in marker_sets(_GROUPS).values()
    ]
    genes = np.unique(np.array([gene for members in sets for gene in members], dtype=np.int64))
    return genes, [np.searchsorted(genes, members).astype(np.int64) for members in sets]


def _marker_scores(values: Any, operator: csr_matrix, model: "SageFM", measured: Bools) -> Floats:
    """Average the standardized smoothed expression of the genes of each marker set."""
    genes, sets = _marker_genes(model)
    z = standardized((operator @ values[:, genes]).toarray())
    return standardized(_means(z, sets, measured[genes]))


def _means(z: Floats, sets: Sequence[Positions], measured: Bools) -> Floats:
    kept = [members[measured[members]] for members in sets]
    means = [z[:, members].mean(axis=1) if len(members) else np.zeros(len(z)) for members in kept]
    return np.column_stack(means)


def _predicted(model: "SageFM", aligned: AlignedSlide) -> Floats:
    """Predict the marker genes of each spot, as log1p of counts per 10,000, standardized."""
    genes, _ = _marker_genes(model)
    result = np.zeros((len(aligned.neighbors), len(genes)))
    everything = [np.arange(len(model.vocabulary))]
    for block in model.predict_masked(aligned, everything, where=None, block_size=_BLOCK):
        counts = np.expm1(block.log1p.astype(np.float64))
        total = counts[:, aligned.measured].sum(axis=1, keepdims=True)
        result[block.spots] = np.log1p(counts[:, genes] / total * _TARGET_SUM)
    return standardized(result) * aligned.measured[genes]


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
