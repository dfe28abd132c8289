"""What a model has to beat: methods without a trained network."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagefm.pp.counts import coordinates, counts, slide_codes
from sagefm.pp.neighborhood import average, nearest

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
    """Principal components of the expression, plain or averaged over neighbors.

    Counts are scaled to the median depth, log1p, and reduced to the most variable genes (scanpy's
    defaults, in that order). Smoothing averages what is left over the nearest spots: training-free,
    and in the literature of 2025-26 hard to beat on tissue domains.

    Parameters
    ----------
    slide
        Raw counts and ``obsm["spatial"]``.
    n_components
        How many components.
    n_genes
        How many of the most variable genes.
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
    import anndata as ad
    import scanpy as sc

    found = counts(slide, layer)
    work = ad.AnnData(found.matrix.copy(), obs=slide.obs[[]], var=found.var[[]])
    sc.pp.filter_genes(work, min_cells=1)
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    if work.n_vars > n_genes:
        sc.pp.highly_variable_genes(work, n_top_genes=n_genes)
        work = work[:, work.var["highly_variable"]].copy()
    if smooth > 1:
        near = nearest(coordinates(slide), smooth, slide_codes(slide, slide_key))
        work.X = average(near) @ work.X
    n_components = min(n_components, min(work.shape) - 1)
    sc.pp.pca(work, n_comps=n_components, random_state=seed)
    return np.asarray(work.obsm["X_pca"], dtype=np.float32)
