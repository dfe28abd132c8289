"""Methods that predict masked genes and learn from no other slide."""

import numpy as np
from numpy.typing import NDArray

from sagefm.evaluate.baselines.masked import Baseline, MaskedSpots, Prediction, Predictor
from sagefm.stats.poisson import log1p_mean

NEIGHBOR_MEAN = "neighbor mean"
NEIGHBOR_PROFILE = "neighbor profile × library size"
SLIDE_PROFILE = "slide profile × library size"
TRAINING_FREE = (NEIGHBOR_PROFILE, SLIDE_PROFILE, NEIGHBOR_MEAN)
SHRINKAGES = tuple(10 ** (n / 4) for n in range(28, 3, -1))
"""Pseudocounts from 10 million to 10, the largest first: it is chosen if all are as good."""
_SAMPLE = 500
"""Spots that the shrinkage is chosen on."""
_FRACTION = 0.3
_LEAST_COUNTS = 1e-6


def training_free(masked: MaskedSpots, seed: int) -> list[Predictor]:
    """Make the methods that learn from no other slide.

    Parameters
    ----------
    masked
        All spots that are to be predicted; the shrinkage is chosen on a sample of them.
    seed
        Of the sample.
    """
    if masked.where != "center":  # neighbors lack the genes too
        return [Baseline(SLIDE_PROFILE, _slide_profile)]
    shrinkage = choose_shrinkage(masked, seed)
    return [
        Baseline(SLIDE_PROFILE, _slide_profile),
        Baseline(NEIGHBOR_MEAN, _neighbor_mean),
        Baseline(NEIGHBOR_PROFILE, lambda spots: _neighbor_profile(spots, shrinkage)),
    ]


def choose_shrinkage(masked: MaskedSpots, seed: int) -> float:
    """Choose how far to shrink the profile of the neighbors to that of the slide.

    Of the visible genes of each spot 30 % are masked too, and predicted as the masked genes are.

    Parameters
    ----------
    masked
        Spots with masked genes, which are not used. 500 of them are drawn if there are more.
    seed
        Of the draws.

    Returns
    -------
    Pseudocounts, one of :data:`SHRINKAGES`: those with the smallest error of log1p counts.
    """
    rng = np.random.default_rng(seed)
    if len(masked.spots) > _SAMPLE:
        masked = masked.of(np.sort(rng.choice(len(masked.spots), _SAMPLE, replace=False)))
    chosen = np.zeros(masked.mask.shape, dtype=bool)
    shape = len(masked.spots), len(masked.genes)
    chosen[:, masked.genes] = rng.random(shape, dtype=np.float32) < _FRACTION
    chosen &= ~masked.mask
    shown = ~(masked.mask | chosen)
    rows = np.nonzero(chosen)[0]
    library_size = masked.counts.sum(axis=1, where=shown, dtype=np.float64)
    truth = np.log1p(masked.counts[chosen])
    neighbors, slide = _sum_over_neighbors(masked), _profile_elsewhere(masked)
    near_shown, far_shown = (
        part.sum(axis=1, where=shown, dtype=np.float64) for part in (neighbors, slide)
    )
    near, far = neighbors[chosen], slide[chosen]
    errors = []
    for shrinkage in SHRINKAGES:
        size = np.maximum(near_shown + shrinkage * far_shown, _LEAST_COUNTS)
        scale = (library_size / size).astype(np.float32)
        predicted = log1p_mean((near + np.float32(shrinkage) * far) * scale[rows])
        errors.append(np.square(predicted - truth).sum(dtype=np.float64))
    return SHRINKAGES[int(np.argmin(errors))]


def by_profile(masked: MaskedSpots, profile: NDArray[np.float32]) -> Prediction:
    """Scale a profile to the library size of each spot, and expect Poisson counts."""
    rate = masked.scaled(profile).astype(np.float32, copy=False)
    return Prediction(log1p_mean(rate), rate)


def _slide_profile(masked: MaskedSpots) -> Prediction | None:
    """Scale the profile of the other spots to the library size of the center."""
    if masked.where == "slide":
        return None
    return by_profile(masked, _elsewhere(masked))


def _neighbor_mean(masked: MaskedSpots) -> Prediction:
    return Prediction(np.asarray(masked.neighbor_mean(masked.slide.log)[:, masked.genes].toarray()))


def _neighbor_profile(masked: MaskedSpots, shrinkage: float) -> Prediction:
    """Add pseudocounts from the profile of the slide to the counts of the neighbors."""
    pseudocounts = np.float32(shrinkage) * _profile_elsewhere(masked)
    return by_profile(masked, _sum_over_neighbors(masked) + pseudocounts)


def _profile_elsewhere(masked: MaskedSpots) -> NDArray[np.float32]:
    """Compute the fraction of the counts of each gene without the center: spots × panel."""
    slide = _elsewhere(masked)
    slide /= np.maximum(slide.sum(axis=1, keepdims=True), 1.0)
    return slide


def _elsewhere(masked: MaskedSpots) -> NDArray[np.float32]:
    """Sum the counts of all spots but the center, or but the whole neighborhood."""
    left_out = masked.counts
    if masked.where != "center":
        left_out = left_out + _sum_over_neighbors(masked)
    rest = np.empty(left_out.shape, dtype=np.float32)
    return np.subtract(masked.slide.total, left_out, out=rest, casting="same_kind")


def _sum_over_neighbors(masked: MaskedSpots) -> NDArray[np.float32]:
    """Sum the counts of the 14 neighbors, nothing masked: spots × panel."""
    neighbors = masked.slide.neighbors[masked.spots]
    operator = masked.operator * (neighbors.shape[1] - 1)
    return np.asarray((operator @ masked.slide.counts).toarray())
