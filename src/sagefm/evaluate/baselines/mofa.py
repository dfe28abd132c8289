"""MOFA factors of a matrix, without the output of mofapy2."""

import contextlib
import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OFF = 1e-6
"""A factor with a smaller standard deviation is switched off; others are near 1."""


def mofa_factors(
    expression: NDArray[Any], *, n_factors: int = 20, seed: int = 0
) -> NDArray[np.float32]:
    """Compute factors of one matrix by MOFA (mofapy2): one view, one group, fast convergence.

    Parameters
    ----------
    expression
        Spots × genes, log1p. MOFA centers the genes.
    n_factors
        How many factors to start with.
    seed
        Of the starting values.

    Returns
    -------
    Spots × factors. Factors that MOFA switched off are left out; at least one is returned.

    Raises
    ------
    ImportError
        mofapy2 is not installed.
    """
    from threadpoolctl import threadpool_limits

    # Matrices are small: on a busy machine, threads cost ten times what they save.
    silent = contextlib.redirect_stdout(io.StringIO())
    with silent, warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        from mofapy2.run.entry_point import entry_point

        entry = entry_point()
        entry.set_data_matrix([[expression]])
        # A spike and slab prior switches off all factors of a slide with few counts.
        entry.set_model_options(factors=n_factors, spikeslab_weights=False)
        entry.set_train_options(
            iter=1000, convergence_mode="fast", seed=seed, quiet=True, verbose=False
        )
        entry.build()
        entry.run()
        factors = np.asarray(entry.model.nodes["Z"].getExpectation(), dtype=np.float32)
    on = factors.std(axis=0) > _OFF
    return factors[:, on] if on.any() else factors[:, :1]
