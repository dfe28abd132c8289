"""Harmony: components of several slides, corrected for the slide."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.evaluate.baselines.pca import joint_pca

if TYPE_CHECKING:
    from anndata import AnnData


def harmony(
    slides: "Sequence[AnnData]", learn_from: Sequence[bool], *, smooth: int, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Correct principal components of all genes by Harmony (harmonypy), a batch per slide.

    Parameters
    ----------
    slides
        All of them are fitted to, whatever `learn_from` says.
    learn_from
        Is not used.
    smooth
        Spots to average over, as for :func:`sagefm.evaluate.pca`.
    seed
        Of the components and of Harmony.

    Returns
    -------
    Spots × components for each slide.

    Raises
    ------
    ImportError
        harmonypy is not installed.
    """
    import harmonypy
    from threadpoolctl import threadpool_limits

    logging.getLogger("harmonypy").setLevel(logging.WARNING)  # it logs each iteration
    parts = joint_pca(slides, [True] * len(slides), n_genes=None, smooth=smooth, seed=seed)
    if len(parts) == 1:
        return parts
    sizes = [len(part) for part in parts]
    batches = pd.DataFrame({"slide": np.repeat([str(i) for i in range(len(parts))], sizes)})
    with threadpool_limits(1):
        fitted = harmonypy.run_harmony(
            np.concatenate(parts).astype(np.float64), batches, "slide", random_state=seed
        )
    corrected = np.asarray(fitted.Z_corr, dtype=np.float32)
    if corrected.shape[0] != sum(sizes):  # before version 0.1 components were rows
        corrected = corrected.T
    return np.split(corrected, np.cumsum(sizes)[:-1])
