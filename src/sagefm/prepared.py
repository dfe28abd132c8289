"""A slide as a network sees it: aligned to a vocabulary, with its neighborhoods."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._keys import GENE_IDS
from sagefm.pp.counts import coordinates, counts, slide_codes
from sagefm.pp.neighborhood import nearest
from sagefm.pp.vocabulary import Alignment, Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Prepared:
    """A slide as a network sees it."""

    expression: csr_matrix
    """Spots × vocabulary, log1p counts, float32."""
    neighbors: NDArray[np.int64]
    """Spots × `n_neighbors` row numbers of `expression`, the center first."""
    alignment: Alignment
    """How the genes of the slide map to the vocabulary."""
    summary: str
    """One line about the alignment."""
    slides: NDArray[np.int64]
    """The slide of each row of `expression`, by number."""

    def without(self, genes: NDArray[np.int64]) -> "Prepared":
        """Give the slide as if it had not measured some genes of the vocabulary."""
        columns = np.where(np.isin(self.alignment.columns, genes), -1, self.alignment.columns)
        kept = np.ones(self.expression.shape[1], dtype=np.float32)
        kept[genes] = 0
        expression = csr_matrix(self.expression.multiply(kept), dtype=np.float32)
        expression.eliminate_zeros()
        alignment = replace(self.alignment, columns=columns)
        return replace(self, expression=expression, alignment=alignment)

    def at(self, spots: slice | NDArray[np.int64]) -> "Prepared":
        """Keep some centers; their neighbors stay at hand."""
        return replace(self, neighbors=self.neighbors[spots])


def prepare(
    slide: "AnnData",
    vocabulary: Vocabulary,
    n_neighbors: int,
    *,
    layer: str | None = None,
    slide_key: str | None = None,
) -> Prepared:
    """Do what :meth:`sagefm.SageFM.prepare` does, for any vocabulary and size of neighborhoods."""
    found = counts(slide, layer)
    ids = found.var[GENE_IDS].astype(str).tolist() if GENE_IDS in found.var else None
    alignment = vocabulary.align(found.var.index.astype(str).tolist(), ids)
    expression = alignment.apply(found.matrix)
    np.log1p(expression.data, out=expression.data)
    codes = slide_codes(slide, slide_key)
    neighbors = nearest(coordinates(slide), n_neighbors, codes)
    return Prepared(expression, neighbors, alignment, alignment.describe(found.matrix), codes)
