"""Features of spots: the expression around them, or their embedding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._types import Bools, Floats, Positions, Singles
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import average
from sagefm.pp.sections import sections_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sagefm.model import SageFM

Features = Literal["expression", "embedding"]

_N_AVERAGED = 7
"""The spot itself and, on a hexagonal grid, the first ring."""
_TARGET_SUM = 1e4
_MAX_GENES = 2000


@dataclass(frozen=True)
class SectionFeatures:
    """Features of the spots of one section of one patient."""

    name: str
    patient: str
    rows: Positions
    """Rows of its spots in the object that it comes from."""
    values: csr_matrix | Singles
    """Spots × columns: normalized log1p expression (genes of the vocabulary), or the embedding."""
    measured: Bools
    """Which columns the section has."""
    operator: csr_matrix
    """Averages over each spot and its six nearest."""
    points: Floats
    """Coordinates of the spots."""

    def raw(self, columns: Positions) -> Singles:
        """Get columns: expression averaged over 7 spots, or the embedding as it is."""
        values: Any = self.values[:, columns]
        if isinstance(values, csr_matrix):
            values = (self.operator @ values).toarray()
        return np.asarray(values, dtype=np.float32)

    def centered(self, columns: Positions) -> Singles:
        """Get columns minus their mean over the section; zero for genes that it lacks."""
        values = self.raw(columns)
        difference: Singles = (values - values.mean(axis=0)) * self.measured[columns]
        return difference

    def filled(self, columns: Positions, fill: Floats) -> Singles:
        """Get columns, with `fill` for genes that the section lacks."""
        return np.where(self.measured[columns], self.raw(columns), fill).astype(np.float32)


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
            rows = np.sort(section.rows)
            spots = slide if len(rows) == slide.n_obs else slide[rows]
            try:
                aligned = model.prepare(spots, layer=layer)
            except InputError as error:
                raise InputError(f"{section.name}: {error}" if name else str(error)) from error
            values: csr_matrix | Singles
            if features == "embedding":
                values = model.embed(aligned)
                measured = np.ones(values.shape[1], dtype=bool)
            else:
                values, measured = _normalize(aligned.log1p), aligned.measured
            yield SectionFeatures(
                section.name, section.patient, rows, values, measured,
                average(aligned.neighbors[:, :_N_AVERAGED]), coordinates(spots),
            )  # fmt: skip


def _normalize(log1p: csr_matrix) -> csr_matrix:
    """Compute log1p of counts per 10,000 counts on the vocabulary.

    Counts come from log1p counts, with their rounding: exact counts are the same to 1e-6, but the
    training of a network amplifies that to 1e-2.
    """
    counts = np.expm1(log1p.data.astype(np.float64))
    rows = np.repeat(np.arange(log1p.shape[0]), np.diff(log1p.indptr))
    total = np.bincount(rows, weights=counts, minlength=log1p.shape[0])
    normalized = np.log1p(counts / total[rows] * _TARGET_SUM).astype(np.float32)
    return csr_matrix((normalized, log1p.indices, log1p.indptr), shape=log1p.shape)


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


def subsample(values: Sequence[Singles], max_spots: int, seed: int) -> Singles:
    """Draw at most so many spots, equally many of each section where it has them."""
    rng, per_section = np.random.default_rng(seed), max(max_spots // len(values), 1)
    return np.concatenate(
        [
            z if len(z) <= per_section else z[np.sort(rng.choice(len(z), per_section, False))]
            for z in values
        ]
    )


def label_codes(labels: "pd.Series[str]", classes: Sequence[str]) -> Positions:
    """Encode labels by their position in the classes, -1 for any other."""
    code_of = {name: code for code, name in enumerate(classes)}
    return np.array([code_of.get(label, -1) for label in labels], dtype=np.int64)
