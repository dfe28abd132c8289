"""Normalized expression of slides on the genes that all of them measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array

from sagefm._errors import InputError
from sagefm._types import Bools, Positions
from sagefm.pp.counts import counts, sum_duplicates

if TYPE_CHECKING:
    from anndata import AnnData

_VALUES = 10_000_000
"""Values of a matrix that are looked at together."""


@dataclass(frozen=True)
class SharedExpression:
    """Expression of several slides on their common genes.

    Attributes
    ----------
    genes
        The genes that are measured in all slides and detected in one at least, sorted by name.
    counts
        For each slide spots × genes, raw counts, float32.
    normalized
        For each slide spots × genes, log1p of counts scaled to the median library size of all
        slides, float32; a spot without counts is zero.
    """

    genes: tuple[str, ...]
    counts: tuple[csr_matrix, ...]
    normalized: tuple[csr_matrix, ...]


def shared_expression(slides: "Sequence[AnnData]", *, layer: str | None = None) -> SharedExpression:
    """Normalize slides together on the genes that all of them measured.

    Parameters
    ----------
    slides
        Raw counts. They are not changed.
    layer
        As in :func:`sagefm.tl.embed`.

    Raises
    ------
    InputError
        No raw counts, or slides without a gene in common.
    """
    raw = [sum_duplicates(counts(slide, layer)) for slide in slides]
    common = common_genes([one.var.index for one in raw])
    columns = [one.var.index.get_indexer(common) for one in raw]
    seen = [_stored(one.matrix)[own] for one, own in zip(raw, columns, strict=True)]
    detected = require_detected(np.any(seen, axis=0))
    matrices = [one.matrix[:, own[detected]] for one, own in zip(raw, columns, strict=True)]
    genes = tuple(map(str, common[detected]))
    return SharedExpression(genes, tuple(matrices), tuple(normalize(matrices)))


def common_genes(names: Sequence[pd.Index]) -> pd.Index:
    """Find the genes that all slides measured, sorted by name."""
    common = names[0]
    for other in names[1:]:
        common = common[common.isin(other)]
    return common[np.argsort(common.to_numpy(dtype=str), kind="stable")]


def require_detected(seen: Bools) -> Positions:
    """Find the genes that are detected in a spot at least; raise an error if none is."""
    detected = np.flatnonzero(seen)
    if not len(detected):
        raise InputError(
            "slides: no gene that is measured in all of them has counts; "
            "use the same gene names, or leave out the slide that differs"
        )
    return detected


def _stored(matrix: csr_matrix) -> Bools:
    """Find the columns that have values, without an index array of another type."""
    seen = np.zeros(matrix.shape[1], dtype=np.bool_)
    for start in range(0, matrix.nnz, _VALUES):
        seen[matrix.indices[start : start + _VALUES]] = True
    return seen


def normalize(matrices: Sequence[csr_matrix]) -> list[csr_matrix]:
    """Compute log1p of counts scaled to the median library size of all matrices, float32."""
    sizes = [np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel() for matrix in matrices]
    every = np.concatenate(sizes)
    usual = float(np.median(every[every > 0]))
    normalized = []
    for matrix, size in zip(matrices, sizes, strict=True):
        scale = np.divide(usual, size, out=np.zeros_like(size), where=size > 0)
        scaled = csr_matrix(diags_array(scale) @ matrix)
        normalized.append(csr_matrix(scaled.log1p(), dtype=np.float32))
    return normalized
