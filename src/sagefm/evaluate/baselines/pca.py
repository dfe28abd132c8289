"""Compute principal components of the expression of slides, for several in one space."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array, identity, vstack
from scipy.sparse.linalg import ArpackError, LinearOperator, svds

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._types import Floats
from sagefm.pp.counts import coordinates, counts, sum_duplicates
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData

_RINGS = (1, 7, 19, 37)
"""Where the rings of a hexagonal grid end among the nearest spots."""

_ROUNDING = 1e-7
"""Components with a smaller fraction of the expression are rounding."""


def pca(
    slide: "AnnData",
    *,
    n_components: int = 50,
    n_genes: int | None = 3000,
    smooth: int = 1,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> NDArray[np.float32]:
    """Compute principal components of the expression, plain or averaged over neighbors.

    Counts are scaled to the median library size, log1p, and reduced to the most variable genes
    (scanpy's defaults, in that order). Smoothing averages these over the nearest spots: it needs no
    training, and is a strong baseline for tissue domains if all genes are kept.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    n_components
        Number of components.
    n_genes
        Number of variable genes; None keeps all genes that are detected.
    smooth
        Spots to average over, the center included: 1 is plain PCA; on a hexagonal grid 7 reaches
        one hop and 19 two.
    seed
        Of the solver.
    layer, slide_key
        As in :func:`sagefm.tl.embed`.

    Returns
    -------
    Spots × components.

    Raises
    ------
    InputError
        No raw counts, no coordinates, or fewer spots than `smooth`.
    """
    return joint_pca(
        [slide], [True], n_components=n_components, n_genes=n_genes, smooth=smooth, seed=seed,
        layer=layer, slide_key=slide_key,
    )[0]  # fmt: skip


def joint_pca(
    slides: "Sequence[AnnData]",
    learn_from: Sequence[bool],
    *,
    n_components: int = 50,
    n_genes: int | None = 3000,
    smooth: int = 1,
    center: bool = False,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> list[NDArray[np.float32]]:
    """Compute components as :func:`pca` does, fitted to some slides and applied to all.

    Parameters
    ----------
    slides, learn_from
        As for :func:`variable_genes`.
    center
        Whether each gene is centered in each slide, and not over all of them: differences between
        the means of slides, such as those of library preparation, are lost.
    n_components, n_genes, smooth, seed, layer, slide_key
        As for :func:`pca`. Spots are averaged within their slide.

    Returns
    -------
    Spots × components for each slide, all in one space.

    Raises
    ------
    InputError
        As for :func:`pca` and :func:`variable_genes`.
    """
    expression = variable_genes(slides, learn_from, n_genes, layer=layer)
    averages = [
        average(nearest(coordinates(slide), smooth, section_codes(slide, slide_key)))
        if smooth > 1
        else csr_matrix(identity(slide.n_obs))
        for slide in slides
    ]
    expression = [x.astype(np.float64) for x in expression]  # float32 costs three digits
    means = [np.ravel(a.mean(axis=0) @ x) for a, x in zip(averages, expression, strict=True)]
    learned = [i for i, used in enumerate(learn_from) if used]
    if not center:
        sizes = [slides[i].n_obs for i in learned]
        means = [np.average([means[i] for i in learned], axis=0, weights=sizes)] * len(slides)
    parts = [Centered(*part) for part in zip(averages, expression, means, strict=True)]
    axes = _leading_axes([parts[i] for i in learned], n_components, seed)
    return [np.asarray(part @ axes, dtype=np.float32) for part in parts]


@dataclass(frozen=True)
class Centered:
    """Averaged and centered expression of a slide, without the dense matrix."""

    average: csr_matrix
    expression: csr_matrix
    mean: Floats

    def __matmul__(self, right: Floats) -> Floats:
        """Multiply from the right."""
        return np.asarray(self.average @ (self.expression @ right) - self.mean @ right)

    def transposed(self, left: Floats) -> Floats:
        """Multiply the transposed matrix by a vector."""
        product = self.expression.T @ (self.average.T @ left)
        return np.asarray(product - self.mean * left.sum())


def _leading_axes(parts: Sequence[Centered], n_components: int, seed: int) -> Floats:
    """Compute genes × components, with the sign that makes the largest loading positive."""
    ends = np.cumsum([part.average.shape[0] for part in parts])
    shape = int(ends[-1]), len(parts[0].mean)

    def transposed(left: Floats) -> Floats:
        own = zip(parts, np.split(left.ravel(), ends[:-1]), strict=True)
        return np.asarray(np.sum([part.transposed(rows) for part, rows in own], axis=0))

    stacked = LinearOperator(
        shape, dtype=np.float64, rmatvec=transposed,
        matvec=lambda right: np.concatenate([part @ right.ravel() for part in parts]),
    )  # fmt: skip
    if min(shape) < 2:
        raise InputError(f"{shape[0]} spots, {shape[1]} genes: principal components need two each")
    start = np.random.default_rng(seed).uniform(-1, 1, size=min(shape))
    try:
        _, spread, loadings = svds(stacked, min(n_components, min(shape) - 1), v0=start)
    except ArpackError:  # there is no direction at all
        spread = np.zeros(1)
    size = sum(part.average.shape[0] * float(part.mean @ part.mean) for part in parts) ** 0.5
    if spread.max() <= _ROUNDING * size:
        raise InputError(
            "expression is the same in every spot; average over fewer spots, or leave the slide out"
        )
    loadings = loadings[::-1]
    largest = np.abs(loadings).argmax(axis=1)
    signs = np.sign(loadings[np.arange(len(loadings)), largest])
    return np.asarray(loadings.T * signs)


def ring_means(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Compute the components of each spot beside their means over the rings around it.

    This is the aggregation of CellCharter, on principal components of all genes: its own
    components, and their means over rings 1, 2 and 3 of a hexagonal grid (6, 12 and 18 spots).

    Parameters
    ----------
    slides, learn_from, seed
        As for :func:`joint_pca`.

    Returns
    -------
    Spots × four times the components for each slide.

    Raises
    ------
    InputError
        As for :func:`joint_pca`.
    """
    embeddings = []
    for slide, own in zip(
        slides, joint_pca(slides, learn_from, n_genes=None, seed=seed), strict=True
    ):
        near = nearest(coordinates(slide), _RINGS[-1], section_codes(slide, None))
        means = [own[near[:, start:stop]].mean(axis=1) for start, stop in pairwise(_RINGS)]
        embeddings.append(np.hstack([own, *means]))
    return embeddings


def variable_genes(
    slides: "Sequence[AnnData]",
    learn_from: Sequence[bool],
    n_genes: int | None,
    *,
    layer: str | None = None,
) -> list[csr_matrix]:
    """Normalize slides together and keep their most variable genes.

    Parameters
    ----------
    slides
        Raw counts.
    learn_from
        For each slide, whether the common library size (the median over spots with counts) and the
        choice of genes may depend on it.
    n_genes
        Number of variable genes (scanpy's ``flavor="seurat"``, all spots together); None keeps all.
    layer
        As in :func:`sagefm.tl.embed`.

    Returns
    -------
    For each slide spots × genes, log1p, float32. The genes are measured in all slides and detected
    in a spot of those with `learn_from`; a spot without counts is zero.

    Raises
    ------
    InputError
        No raw counts, no slide to learn from, or slides without a gene in common.
    """
    if not any(learn_from):
        raise InputError("learn_from: is False for all slides; set it for one at least")
    matrices = _common_genes(slides, layer)
    learning = [matrix for matrix, used in zip(matrices, learn_from, strict=True) if used]
    detected = np.flatnonzero(sum(matrix.getnnz(axis=0) for matrix in learning))
    if not len(detected):
        raise InputError(
            "slides: no gene that is measured in all of them has counts; "
            "use the same gene names, or leave out the slide that differs"
        )
    sizes = np.concatenate([matrix.sum(axis=1).A1 for matrix in learning])
    size = float(np.median(sizes[sizes > 0]))
    expression = [_log_normalized(matrix[:, detected], size) for matrix in matrices]
    if n_genes is None or len(detected) <= n_genes:
        return expression
    import anndata as ad

    scanpy = require("scanpy", "evaluate", "the choice of variable genes")
    learned = [matrix for matrix, used in zip(expression, learn_from, strict=True) if used]
    work = ad.AnnData(vstack(learned, format="csr"))
    variable = scanpy.pp.highly_variable_genes(work, n_top_genes=n_genes, inplace=False)
    chosen = np.flatnonzero(variable["highly_variable"])
    return [matrix[:, chosen] for matrix in expression]


def _common_genes(slides: "Sequence[AnnData]", layer: str | None) -> list[csr_matrix]:
    """Get the counts of the genes that all slides have, in the order of the first slide."""
    raw = [sum_duplicates(counts(slide, layer)) for slide in slides]
    common = raw[0].var.index
    for other in raw[1:]:
        common = common[common.isin(other.var.index)]
    return [one.matrix[:, one.var.index.get_indexer(common)] for one in raw]


def _log_normalized(matrix: csr_matrix, library_size: float) -> csr_matrix:
    sizes = matrix.sum(axis=1).A1
    scale = np.divide(library_size, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return csr_matrix((diags_array(scale) @ matrix).log1p(), dtype=np.float32)
