"""Make a tile look like one of another kind of slide: shallower, or of fewer genes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

LEAST_DEPTH = 0.1
"""Smallest fraction of the counts that thinning keeps."""
LEAST_GENES = 500
"""Smallest panel, unless the slide measured fewer genes."""


@dataclass(frozen=True)
class Augmentation:
    """How often each is done to a tile.

    Parameters
    ----------
    thin
        Fraction of the tiles of which only 10 to 100 % of the counts are kept, each by itself.
    panel
        Fraction of the tiles of which only 500 genes or more count as measured: rather those with
        many counts, as panels and selections of genes have them.
    """

    thin: float = 0.0
    panel: float = 0.0

    def __call__(
        self, counts: csr_matrix, measured: NDArray[np.bool_], chance: np.random.Generator
    ) -> tuple[csr_matrix, NDArray[np.bool_]]:
        """Drop counts or genes of a tile, or neither.

        Parameters
        ----------
        counts
            Spots × genes.
        measured
            Genes: which of them the slide has.
        """
        thin, panel = chance.random(2) < (self.thin, self.panel)
        if thin:
            counts = _thinned(counts, _log_uniform(LEAST_DEPTH, 1, chance), chance)
        return _on_panel(counts, measured, chance) if panel else (counts, measured)


def _thinned(counts: csr_matrix, fraction: float, chance: np.random.Generator) -> csr_matrix:
    """Keep each count with the same probability."""
    data = chance.binomial(counts.data.astype(np.int64), fraction).astype(np.float32)
    thinned = csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    thinned.eliminate_zeros()
    return thinned


def _on_panel(
    counts: csr_matrix, measured: NDArray[np.bool_], chance: np.random.Generator
) -> tuple[csr_matrix, NDArray[np.bool_]]:
    """Keep some of the measured genes, drawn evenly or by their counts."""
    genes = np.flatnonzero(measured)
    if len(genes) <= LEAST_GENES:
        return counts, measured
    n_kept = round(_log_uniform(LEAST_GENES, len(genes), chance))
    total = np.asarray(counts.sum(axis=0)).ravel()[genes]
    # The largest sums of Gumbel noise and log weights: draws by weight, without replacement.
    score = chance.choice([0.0, 0.5, 1.0]) * np.log(total + 0.1) + chance.gumbel(size=len(genes))
    kept = np.zeros(len(measured), dtype=bool)
    kept[genes[np.argsort(-score)[:n_kept]]] = True
    data = counts.data * kept[counts.indices]
    panel = csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    panel.eliminate_zeros()
    return panel, kept


def _log_uniform(low: float, high: float, chance: np.random.Generator) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))
