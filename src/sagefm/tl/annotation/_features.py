"""A slide as an annotator reads it: what a spot is like, beside the rest of its own slide."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._types import Positions
from sagefm.pp.counts import coordinates
from sagefm.pp.neighborhood import average
from sagefm.pp.sections import sections_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.pp.aligned import AlignedSlide

Features = Literal["expression", "embedding"]

RING = 7
"""Spots that are averaged: itself and, on a hexagonal grid, the first ring."""
_TARGET = 1e4
_MOST_GENES = 2000


@dataclass(frozen=True)
class SectionFeatures:
    """One section of one patient."""

    name: str
    patient: str
    rows: Positions
    """Its spots in the object that it comes from."""
    values: csr_matrix | NDArray[np.float32]
    """Spots × columns: depth-normalized log1p expression (genes of the vocabulary), or z."""
    measured: NDArray[np.bool_]
    """Which columns the slide has."""
    around: csr_matrix
    """Averages over each spot and its six nearest."""
    points: NDArray[np.float64]
    prepared: "AlignedSlide"

    def read(self, columns: Positions) -> NDArray[np.float32]:
        """Give some columns: expression averaged over 7 spots, an embedding (it is) as it is."""
        found: Any = self.values[:, columns]
        if isinstance(found, csr_matrix):
            found = (self.around @ found).toarray()
        return np.asarray(found, dtype=np.float32)

    def relative(self, columns: Positions) -> NDArray[np.float32]:
        """Give some columns beside their mean over the slide; zero where it lacks the gene."""
        found = self.read(columns)
        beside: NDArray[np.float32] = (found - found.mean(axis=0)) * self.measured[columns]
        return beside

    def absolute(self, columns: Positions, fill: NDArray[np.float64]) -> NDArray[np.float32]:
        """Give some columns, and `fill` for the genes that the slide lacks."""
        return np.where(self.measured[columns], self.read(columns), fill).astype(np.float32)


def view_slides(
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
        for piece in sections_of({name: slide}, slide_key=slide_key, patient_key=patient_key):
            rows = np.sort(piece.rows)
            own = slide if len(rows) == slide.n_obs else slide[rows]
            try:
                prepared = model.prepare(own, layer=layer)
            except InputError as error:
                raise InputError(f"{piece.name}: {error}" if name else str(error)) from error
            whole = features == "embedding"
            values = model.embed(prepared) if whole else _normalized(prepared.log1p)
            n_columns = values.shape[1]
            measured = np.ones(n_columns, dtype=bool) if whole else prepared.measured
            around = average(prepared.neighbors[:, :RING])
            yield SectionFeatures(
                piece.name, piece.patient, rows, values, measured, around, coordinates(own),
                prepared,
            )  # fmt: skip


def _normalized(logs: csr_matrix) -> csr_matrix:
    """Turn log1p counts into log1p counts per 10,000 of the spot."""
    found = logs.copy()
    counts = np.expm1(found.data.astype(np.float64))
    rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    depth = np.bincount(rows, weights=counts, minlength=found.shape[0])
    found.data = np.log1p(counts / depth[rows] * _TARGET).astype(np.float32)
    return found


def informative(views: Sequence[SectionFeatures]) -> Positions:
    """Choose the columns that vary most within slides, 2,000 genes at most; all of an embedding.

    A gene is judged by its mean variance over the slides; where a slide lacks it, that is zero.
    """
    n_columns = views[0].values.shape[1]
    if not isinstance(views[0].values, csr_matrix):
        return np.arange(n_columns)
    variance = np.zeros(n_columns)
    for view in views:
        values: Any = view.values
        squares = values.multiply(values).mean(axis=0).A1
        variance += squares - values.mean(axis=0).A1 ** 2
    ranked = np.argsort(-variance, kind="stable")[:_MOST_GENES]
    return np.sort(ranked[variance[ranked] > 0])


def codes_of(labels: "pd.Series[str]", classes: Sequence[str]) -> Positions:
    """Give each label its place among the classes, -1 where it has none."""
    place = {name: code for code, name in enumerate(classes)}
    return np.array([place.get(label, -1) for label in labels], dtype=np.int64)
