"""Pool the spots of a slide into features.

Features of a slide are sums over its spots and logits are linear in features, so that the
contribution of each spot to a prediction is exact. A patient has the mean features of its slides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sagefm._types import Codes, Floats, Singles
from sagefm.stats.pca import WhitenedPCA

SpotFeatures = Callable[[Tensor], Tensor]
"""Spots × width → spots × features, which add up to the features of the slide."""

_N_TRAINING_SPOTS = 128
"""Spots of each slide, drawn at random, that components of spots are fitted to."""
_N_BANDS = 5
"""A quantile is the mean over one fifth of the spots: around 10, 50 and 90 %."""


@dataclass(frozen=True)
class Readout:
    """Pooling and linear predictions that were fitted to some patients."""

    spot_features: SpotFeatures
    weights: Floats
    """Predictions (such as classes) × features."""
    intercepts: Floats
    """Per prediction."""

    @classmethod
    def of(
        cls,
        spot_features: SpotFeatures,
        reduction: WhitenedPCA,
        weights: Floats,
        intercepts: Floats,
    ) -> Self:
        """Make one whose weights are those of components of the features."""
        reduced = partial(_reduce, spot_features=spot_features, reduction=reduction)
        return cls(reduced, weights, intercepts)

    def contributions(self, z: Tensor) -> Tensor:
        """Compute what each spot adds to the predictions of its slide: spots × predictions."""
        return self.spot_features(z.double()) @ torch.from_numpy(self.weights.T).to(z.device)

    def logits(self, embeddings: Sequence[Singles]) -> Floats:
        """Compute the predictions of a patient from the embeddings of its slides."""
        sums = [self.contributions(torch.from_numpy(z)).sum(dim=0).numpy() for z in embeddings]
        return np.asarray(np.mean(sums, axis=0) + self.intercepts)


def drawn_spots(embeddings: Sequence[Singles], seed: int) -> list[Singles]:
    """Draw the spots of each slide that components of spots are fitted to."""
    rng = np.random.default_rng(seed)
    return [z[np.sort(rng.permutation(len(z))[:_N_TRAINING_SPOTS])] for z in embeddings]


def pool(
    embeddings: Sequence[Singles], patients: Codes, n_patients: int, spot_features: SpotFeatures
) -> Floats:
    """Pool slides, and average them over patients: patients × features."""
    spots = (torch.from_numpy(z).double() for z in embeddings)
    of_slides = np.stack([spot_features(z).sum(dim=0).numpy() for z in spots])
    return np.stack([of_slides[patients == code].mean(axis=0) for code in range(n_patients)])


def mean(z: Tensor) -> Tensor:
    """Weigh all spots equally: the features of the slide are the mean embedding."""
    return z / len(z)


def quantiles(z: Tensor, reduction: WhitenedPCA) -> Tensor:
    """Take, of each component, the mean of the lowest, the middle and the highest fifth of spots.

    A quantile is the value of one spot. The mean over a fifth of the spots is close to it, is less
    noisy, and is a sum over spots, so that each has an exact contribution.
    """
    components = _apply(reduction, z)
    n = len(components)
    size = -(-n // _N_BANDS)
    rank = components.argsort(dim=0, stable=True).argsort(dim=0)
    starts = (0, (n - size) // 2, n - size)
    bands = [components * ((rank >= start) & (rank < start + size)) / size for start in starts]
    return torch.cat(bands, dim=1)


def _reduce(z: Tensor, spot_features: SpotFeatures, reduction: WhitenedPCA) -> Tensor:
    """Reduce features to components; every spot subtracts an equal part of the center."""
    center = torch.from_numpy(reduction.center).to(z.device)
    axes = torch.from_numpy(reduction.axes).to(z.device)
    return (spot_features(z) - center / len(z)) @ axes


def _apply(reduction: WhitenedPCA, z: Tensor) -> Tensor:
    center, axes = (torch.from_numpy(a).to(z.device) for a in (reduction.center, reduction.axes))
    return (z - center) @ axes
