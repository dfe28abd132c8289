"""From the spots of a slide to the logits of classes, as a sum over spots: three ways to pool.

Whatever the pooling, the features of a slide are a sum over its spots, and logits are linear in
them: what each spot contributes is exact. The features of a patient are the mean of its slides'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagefm._types import Codes, Floats
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import fit_probes
from sagefm.tl.subtyping._attention import Attention, fit_attention
from sagefm.tl.subtyping._samples import N_COMPONENTS, Samples, fold_of, out_of_fold

Pooling = Literal["mean", "quantiles", "attention"]
Spread = Callable[[Tensor], Tensor]
"""Takes spots × width, gives spots × features, which add up to the features of the slide."""

_TAUGHT = 128
"""Spots of a slide, drawn by seed, that components and attention are learned from."""
_ATTENDED = 5
"""Components that attention is learned on: more of them, and noise is attended to."""
_BAND = 5
"""Part of the spots that a mean stands for a quantile: a fifth around 10, 50 and 90 %."""


@dataclass(frozen=True)
class Bag:
    """A slide to learn from."""

    patient: int
    """Code of its patient."""
    z: NDArray[np.float32]
    """Embedding, spots × width; one row, the mean, where no more is needed."""


@dataclass(frozen=True)
class Readout:
    """What was learned from some patients."""

    spread: Spread
    weights: Floats
    """Classes × features."""
    intercepts: Floats
    """Per class."""

    def contributions(self, z: Tensor) -> Tensor:
        """Get what each spot adds to the logits of its slide, intercepts aside: spots × classes."""
        return self.spread(z.double()) @ torch.from_numpy(self.weights.T).to(z.device)

    def logits(self, slides: Sequence[NDArray[np.float32]]) -> Floats:
        """Get the logits of a patient, given the embeddings of its slides."""
        sums = [self.contributions(torch.from_numpy(z)).sum(dim=0).numpy() for z in slides]
        return np.asarray(np.mean(sums, axis=0) + self.intercepts)


def learn(
    bags: Sequence[Bag], samples: Samples, truths: Codes, pooling: Pooling, seed: int
) -> tuple[Floats, list[Readout]]:
    """Learn from all patients but one, for each of them, and then from all.

    Parameters
    ----------
    bags
        The slides.
    samples
        The patients, each a sample of its own.
    truths
        Labelings × patients, the truth first.
    pooling
        How spots become features.
    seed
        Of the spots that are learned from, and of attention.

    Returns
    -------
    Out-of-fold probabilities, labelings × patients × classes; and what was learned of the truth by
    each fold, in the order of the patients, and last from all patients.
    """
    knowns = [np.array(known) for known in samples.folds] + [np.ones(len(samples.truth), bool)]
    chance = np.random.default_rng(seed)
    taught = [Bag(bag.patient, bag.z[_some(len(bag.z), chance)]) for bag in bags]
    if pooling == "attention":
        return _attention(bags, taught, samples, truths, knowns, seed)
    return _linear(bags, taught, samples, truths, knowns, pooling)


def _some(n: int, chance: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(chance.permutation(n)[:_TAUGHT])


def _linear(
    bags: Sequence[Bag],
    taught: Sequence[Bag],
    samples: Samples,
    truths: Codes,
    knowns: Sequence[NDArray[np.bool_]],
    pooling: Pooling,
) -> tuple[Floats, list[Readout]]:
    """Pool without labels, and let the probe of the evaluation read the result."""
    folds, readouts = [], []
    for known in knowns:
        parts: Spread = even
        if pooling == "quantiles":
            spots = np.concatenate([bag.z for bag in taught if known[bag.patient]])
            parts = partial(in_bands, reduction=WhitenedPCA.fit(spots, N_COMPONENTS))
        fold = fold_of(known, _pooled(bags, len(known), parts))
        probes = fit_probes(fold.features[known], truths[:1, known], len(samples.classes))
        spread = partial(_reduced, spread=parts, reduction=fold.reduction)
        folds.append(fold)
        readouts.append(Readout(spread, probes.weights[0], probes.intercepts[0]))
    return out_of_fold(samples, folds[:-1], truths), readouts


def _attention(
    bags: Sequence[Bag],
    taught: Sequence[Bag],
    samples: Samples,
    truths: Codes,
    knowns: Sequence[NDArray[np.bool_]],
    seed: int,
) -> tuple[Floats, list[Readout]]:
    """Learn which spots count, on principal components of spots."""
    found = np.empty((*truths.shape, len(samples.classes)))
    readouts = []
    for known in knowns:
        spots = np.concatenate([bag.z for bag in taught if known[bag.patient]])
        reduction = WhitenedPCA.fit(spots, _ATTENDED)
        means = reduction(_pooled(bags, len(known), even))
        reduction, means = _among(reduction, means, known)
        patients = np.flatnonzero(known)
        mine = [bag for bag in taught if known[bag.patient]]
        fitted = fit_attention(
            [reduction(bag.z) for bag in mine],
            np.searchsorted(patients, [bag.patient for bag in mine]),
            # What is learned from all patients predicts others: no permutation asks for it.
            truths[:, known] if not known.all() else truths[:1],
            len(samples.classes), means[known], seed,
        )  # fmt: skip
        for out in np.flatnonzero(~known):
            own = [torch.from_numpy(reduction(bag.z)) for bag in bags if bag.patient == out]
            found[:, out] = fitted.probabilities(own)
        spread = partial(_attended, reduction=reduction, attention=fitted)
        readouts.append(Readout(spread, *fitted.probe(0)))
    return found, readouts


def _among(
    reduction: WhitenedPCA, means: Floats, known: NDArray[np.bool_]
) -> tuple[WhitenedPCA, Floats]:
    """Give the component that known patients differ in most standard deviation 1 among them.

    The others keep their proportion: that in which patients hardly differ is not blown up.
    """
    spread = means[known].std(axis=0, ddof=1).max() or 1.0
    return WhitenedPCA(reduction.center, reduction.axes / spread), means / spread


def _pooled(bags: Sequence[Bag], n_patients: int, spread: Spread) -> Floats:
    """Pool slides, and average them over patients: patients × features."""
    spots = (torch.from_numpy(bag.z).double() for bag in bags)
    of_bag = np.stack([spread(z).sum(dim=0).numpy() for z in spots])
    owner = np.array([bag.patient for bag in bags])
    return np.stack([of_bag[owner == patient].mean(axis=0) for patient in range(n_patients)])


def even(z: Tensor) -> Tensor:
    """Let each spot count the same: the features are the mean."""
    return z / len(z)


def in_bands(z: Tensor, reduction: WhitenedPCA) -> Tensor:
    """Spread quantiles over spots: of each component the lowest, middle and highest fifth.

    A quantile is one spot. The mean of the fifth of the spots around it says nearly the same, is
    steadier, and is a sum over spots, so that each of them has its exact part in it.
    """
    h = _components(z, reduction)
    n = len(h)
    band = -(-n // _BAND)
    rank = h.argsort(dim=0, stable=True).argsort(dim=0)
    starts = (0, (n - band) // 2, n - band)
    parts = [h * ((rank >= start) & (rank < start + band)) / band for start in starts]
    return torch.cat(parts, dim=1)


def _attended(z: Tensor, reduction: WhitenedPCA, attention: Attention) -> Tensor:
    """Let spots count as attention says: the features are the weighted mean of components."""
    h = _components(z, reduction)
    return attention.weights(h)[0].unsqueeze(1) * h


def _reduced(z: Tensor, spread: Spread, reduction: WhitenedPCA) -> Tensor:
    """Reduce features; the center that is taken away is shared by the spots."""
    center = torch.from_numpy(reduction.center).to(z.device)
    return (spread(z) - center / len(z)) @ torch.from_numpy(reduction.axes).to(z.device)


def _components(z: Tensor, reduction: WhitenedPCA) -> Tensor:
    center, axes = (torch.from_numpy(a).to(z.device) for a in (reduction.center, reduction.axes))
    return (z - center) @ axes
