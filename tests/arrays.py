"""Aligned slides from arrays, where a test needs no AnnData."""

import numpy as np
from scipy.sparse import csr_matrix

from sagefm.pp.aligned import AlignedSlide, row_sums


def aligned(log1p, measured, sections):
    """Take log1p counts of spots × genes as a slide; each spot is its own neighborhood."""
    counts = csr_matrix(
        (np.rint(np.expm1(log1p.data)), log1p.indices, log1p.indptr), shape=log1p.shape
    )
    own = np.arange(len(sections))[:, None]
    rank = np.arange(len(sections))
    return AlignedSlide(counts, own, measured, np.asarray(sections), row_sums(counts), rank)
