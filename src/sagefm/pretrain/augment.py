"""Make a tile look like one of another kind of slide: shallower, smaller, or of fewer genes."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.pp.aligned import AlignedSlide, row_sums

LEAST_DEPTH = 0.1
"""Smallest fraction of the counts that thinning keeps."""
LEAST_GENES = 500
"""Smallest panel, unless the slide measured fewer genes."""
LEAST_SPOTS = 0.2
"""Smallest fraction of the spots of a tile that a crop keeps."""


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
    crop
        Fraction of the tiles of which only a contiguous 20 to 100 % of the spots are kept.
    """

    thin: float = 0.0
    panel: float = 0.0
    crop: float = 0.0

    def __call__(self, tile: AlignedSlide, chance: np.random.Generator) -> AlignedSlide:
        """Drop counts or genes of a tile, or neither."""
        thin, panel = chance.random(2) < (self.thin, self.panel)
        if thin:
            tile = _thinned(tile, _log_uniform(LEAST_DEPTH, 1, chance), chance)
        return _on_panel(tile, chance) if panel else tile

    def kept(
        self, n_spots: int, centers: NDArray[np.int64], chance: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Draw which of the spots of a tile, in the order of its curve, are kept.

        Parameters
        ----------
        centers
            Spots of which some are always kept.
        """
        kept = np.ones(n_spots, dtype=bool)
        if chance.random() < self.crop:
            n_kept = round(_log_uniform(LEAST_SPOTS, 1, chance) * n_spots)
            first = int(chance.integers(n_spots - n_kept + 1))
            kept[:first] = kept[first + n_kept :] = False
        return kept if kept[centers].any() else np.ones(n_spots, dtype=bool)


def _thinned(tile: AlignedSlide, fraction: float, chance: np.random.Generator) -> AlignedSlide:
    """Keep each count with the same probability."""
    counts = tile.counts
    data = chance.binomial(counts.data.astype(np.int64), fraction).astype(np.float32)
    parts = (data, counts.indices.copy(), counts.indptr.copy())
    thinned = csr_matrix(parts, shape=counts.shape)
    thinned.eliminate_zeros()
    return replace(tile, counts=thinned, library_size=row_sums(thinned))


def _on_panel(tile: AlignedSlide, chance: np.random.Generator) -> AlignedSlide:
    """Keep some of the measured genes, drawn by the square root of their counts or evenly."""
    measured = np.flatnonzero(tile.measured)
    if len(measured) <= LEAST_GENES:
        return tile
    n_kept = round(_log_uniform(LEAST_GENES, len(measured), chance))
    total = np.asarray(tile.counts.sum(axis=0)).ravel()[measured]
    power = chance.choice([0.0, 0.5, 1.0])
    # The largest of Gumbel noise plus log weights: a draw without replacement by weight.
    score = power * np.log(total + 0.1) + chance.gumbel(size=len(measured))
    return tile.without(measured[np.argsort(-score)[n_kept:]])


def _log_uniform(low: float, high: float, chance: np.random.Generator) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))
