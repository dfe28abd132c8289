"""Draw masks of random genes, or of modules of coexpressed genes."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.nn.masking import Masks, draw_masks

FRACTION = 0.3
"""Fraction of the genes that are masked, as in the paper."""
_MODULES = 20


def random_masks(n_spots: int, n_genes: int, rng: np.random.Generator) -> Masks:
    """Mask 30 % of the genes of each spot, drawn for each spot anew, as in pretraining."""
    return draw_masks(n_spots, n_genes, FRACTION, rng)


def module_masks(n_spots: int, modules: NDArray[np.int64], rng: np.random.Generator) -> Masks:
    """Mask whole modules of genes in each spot, as close to 30 % of the genes as possible.

    If random genes are masked, most genes that are coexpressed with a masked gene are not; if a
    module is masked, all of them are.

    Parameters
    ----------
    modules
        For each gene the module it is in, as :func:`coexpression_modules` gives them.
    """
    sizes = np.bincount(modules)
    drawn = rng.random((n_spots, len(sizes))).argsort(axis=1)
    fraction = sizes[drawn].cumsum(axis=1) / len(modules)
    n_masked = 1 + np.abs(fraction - FRACTION).argmin(axis=1)
    ranks = drawn.argsort(axis=1)
    order = np.argsort(modules, kind="stable")
    ends = np.concatenate([[0], sizes.cumsum()])
    return Masks(*map(torch.from_numpy, (order, ends, ranks < n_masked[:, None])))


def same_in_all_spots(masks: Masks) -> Masks:
    """Mask the genes of the first spot in every spot, as if the slide had not measured them."""
    return masks._replace(masked=masks.masked[:1].expand(len(masks.masked), -1))


def coexpression_modules(counts: csr_matrix, seed: int) -> NDArray[np.int64]:
    """Group genes by the direction of their loadings on the principal components of a slide.

    Counts are scaled to equal library sizes, log1p; k-means finds 20 clusters of loadings on 20
    components, scaled to length 1. Genes without any count are assigned to modules at random.

    Parameters
    ----------
    counts
        Spots × genes.
    seed
        Source of all rng.

    Returns
    -------
    For each gene the number of its module; every module has a gene.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    n_spots, n_genes = counts.shape
    library_size = np.maximum(counts.sum(axis=1).A1, 1.0)
    scaled = csr_matrix(
        counts.multiply((np.median(library_size) / library_size)[:, None]), dtype=np.float32
    )
    scaled.data = np.log1p(scaled.data)
    modules = rng.integers(_MODULES, size=n_genes)
    detected = np.flatnonzero(np.bincount(counts.indices[counts.data > 0], minlength=n_genes))
    n_components = min(_MODULES, n_spots - 1, len(detected) - 1)
    n_modules = min(_MODULES, len(detected) // 2)
    if n_components < 2 or n_modules < 2:
        return np.unique(modules, return_inverse=True)[1]
    pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(scaled[:, detected])
    loadings = (pca.components_ * pca.singular_values_[:, None]).T
    loadings /= np.maximum(np.linalg.norm(loadings, axis=1, keepdims=True), 1e-12)
    clusters = KMeans(n_modules, n_init=1, random_state=seed).fit(loadings)
    modules[detected] = clusters.labels_
    return np.unique(modules, return_inverse=True)[1]
