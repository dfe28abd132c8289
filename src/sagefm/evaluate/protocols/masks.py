"""What is hidden from a predictor: random genes, or co-expressed genes together."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.nn.masking import Masks, draw_masks

FRACTION = 0.3
"""Share of the genes that is hidden, as in the paper."""
_MODULES = 20


def random_masks(n_spots: int, n_genes: int, chance: np.random.Generator) -> Masks:
    """Hide 30 % of the genes of each spot, drawn afresh for each, as in pretraining."""
    return draw_masks(n_spots, n_genes, FRACTION, chance)


def module_masks(n_spots: int, modules: NDArray[np.int64], chance: np.random.Generator) -> Masks:
    """Hide whole modules of genes in each spot, as near to 30 % of the genes as they allow.

    Random genes leave most partners of a hidden gene visible, to be copied from; a hidden module
    leaves none.

    Parameters
    ----------
    modules
        For each gene the module it is in, as :func:`coexpression_modules` gives them.
    """
    sizes = np.bincount(modules)
    drawn = chance.random((n_spots, len(sizes))).argsort(axis=1)
    hidden = sizes[drawn].cumsum(axis=1) / len(modules)
    n_hidden = 1 + np.abs(hidden - FRACTION).argmin(axis=1)
    ranks = drawn.argsort(axis=1)
    order = np.argsort(modules, kind="stable")
    ends = np.concatenate([[0], sizes.cumsum()])
    return Masks(*map(torch.from_numpy, (order, ends, ranks < n_hidden[:, None])))


def whole_slide(masks: Masks) -> Masks:
    """Hide in every spot what is hidden in the first: genes that the slide does not have."""
    return masks._replace(hides=masks.hides[:1].expand(len(masks.hides), -1))


def coexpression_modules(counts: csr_matrix, seed: int) -> NDArray[np.int64]:
    """Group genes by the direction of their loadings on the principal components of a slide.

    Counts of equal depth, log1p, 20 components, k-means with 20 clusters on loadings of length 1.
    Genes without any count are spread over the modules at random.

    Parameters
    ----------
    counts
        Spots × genes.
    seed
        Source of all chance.

    Returns
    -------
    For each gene the number of its module; every module has a gene.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    chance = np.random.default_rng(seed)
    n_spots, n_genes = counts.shape
    depth = np.maximum(counts.sum(axis=1).A1, 1.0)
    scaled = csr_matrix(counts.multiply((np.median(depth) / depth)[:, None]), dtype=np.float32)
    scaled.data = np.log1p(scaled.data)
    modules = chance.integers(_MODULES, size=n_genes)
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
