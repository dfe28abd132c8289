"""Aligned slides from arrays, where a test needs no AnnData."""

import numpy as np
from scipy.sparse import csr_matrix

from sagefm.pp.aligned import AlignedSlide
from sagefm.stats.sums import row_sums


def aligned(log1p, measured, sections, neighbors=None, rank=None):
    """Take log1p counts of spots × genes as a slide; each spot is its own neighborhood."""
    counts = csr_matrix(
        (np.rint(np.expm1(log1p.data)), log1p.indices, log1p.indptr), shape=log1p.shape
    )
    if neighbors is None:
        neighbors = np.arange(len(sections))[:, None]
    rank = np.arange(len(sections)) if rank is None else rank
    sizes = row_sums(counts)
    return AlignedSlide(counts, neighbors, measured, np.asarray(sections), sizes, rank)
