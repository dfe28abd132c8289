"""Compute principal components of the expression of slides, for several in one space."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array, vstack

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm.pp.counts import coordinates, counts, sum_duplicates
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.sections import section_codes

if TYPE_CHECKING:
    from anndata import AnnData


def pca(
    slide: "AnnData",
    *,
    n_components: int = 50,
    n_genes: int = 3000,
    smooth: int = 1,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> NDArray[np.float32]:
    """Compute principal components of the expression, plain or averaged over neighbors.

    Counts are scaled to the median library size, log1p, and reduced to the most variable genes
    (scanpy's defaults, in that order). Smoothing averages these over the nearest spots: it needs no
    training, and is a strong baseline for tissue domains.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    n_components
        Number of components.
    n_genes
        Number of variable genes.
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
    n_genes: int = 3000,
    smooth: int = 1,
    seed: int = 0,
    layer: str | None = None,
    slide_key: str | None = None,
) -> list[NDArray[np.float32]]:
    """Compute components as :func:`pca` does, fitted to some slides and applied to all.

    Parameters
    ----------
    slides, learn_from
        As for :func:`variable_genes`.
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
    from sklearn.decomposition import PCA

    expression = variable_genes(slides, learn_from, n_genes, layer=layer)
    if smooth > 1:
        for i, slide in enumerate(slides):
            near = nearest(coordinates(slide), smooth, section_codes(slide, slide_key))
            expression[i] = csr_matrix(average(near) @ expression[i])
    learned = vstack(
        [matrix for matrix, used in zip(expression, learn_from, strict=True) if used], format="csr"
    )
    n_components = min(n_components, min(learned.shape) - 1)
    fitted = PCA(n_components, svd_solver="arpack", random_state=seed)
    fitted.fit(learned.astype(np.float64))  # in float32 the solver is off by 1e-3
    return [np.asarray(fitted.transform(matrix), dtype=np.float32) for matrix in expression]


def variable_genes(
    slides: "Sequence[AnnData]",
    learn_from: Sequence[bool],
    n_genes: int,
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
        Number of variable genes (scanpy's ``flavor="seurat"``, all spots together).
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
    if len(detected) <= n_genes:
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
