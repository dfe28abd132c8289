"""Everything that fills in hidden genes: baselines, models, and controls that know nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sagefm.evaluate.baselines import ridge
from sagefm.evaluate.baselines.embedding import Kind
from sagefm.evaluate.baselines.reference import Reference, shrunk
from sagefm.evaluate.baselines.shown import Guess, Predictor, Shown, View
from sagefm.model import SageFM
from sagefm.nn import MaskedGenes
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import log1p_mean, rate_of

NEIGHBOR_MEAN = "neighbor mean"
NEIGHBOR_PROFILE = "neighbor profile × depth"
REFERENCE_PROFILE = "reference profile × depth"
GENE_MEAN = "gene mean"


@dataclass(frozen=True)
class Baseline:
    """A predictor without a network."""

    name: str
    answer: Callable[[Shown], Guess | None]
    kind: Kind = "baseline"

    def __call__(self, shown: Shown) -> Guess | None:
        """Predict the genes that are asked for; None where it has nothing to go by."""
        return self.answer(shown)


def baselines(reference: Reference, seed: int) -> list[Predictor]:
    """Make all baselines; what must learn learns from `reference`, and is left out without one."""
    found = [
        Baseline("slide profile × depth", _slide_profile),
        Baseline(NEIGHBOR_MEAN, _neighbor_mean),
        Baseline(NEIGHBOR_PROFILE, lambda shown: _neighbor_profile(shown, reference.shrinkage)),
    ]
    if not reference:
        return list(found)

    def by_ridge(neighbors: bool) -> Callable[[Shown], Guess]:
        def answer(shown: Shown) -> Guess:
            fitted = ridge.fit(reference, shown, neighbors=neighbors, seed=seed)
            return Guess(fitted.predict(shown))

        return answer

    return [
        Baseline(GENE_MEAN, lambda shown: _gene_mean(shown, reference)),
        Baseline(REFERENCE_PROFILE, lambda shown: _by_profile(shown, reference.profile)),
        *found,
        Baseline("ridge on the center", by_ridge(neighbors=False)),
        Baseline("ridge on center and neighbors", by_ridge(neighbors=True)),
    ]


@dataclass
class ModelPredictor:
    """A model, shown the genes of its vocabulary as far as they are visible."""

    name: str
    model: SageFM
    panel: Vocabulary
    kind: Kind = "model"
    _last: tuple[View, AlignedSlide] | None = field(default=None, repr=False)

    @torch.inference_mode()
    def __call__(self, shown: Shown) -> Guess:
        """Predict the genes that are asked for."""
        if self._last is None or self._last[0] is not shown.view:
            self._last = shown.view, self.model.prepare(shown.view.slide)
        prepared, model = self._last[1], self.model
        at = np.array([self.panel.index[symbol] for symbol in model.vocabulary])
        mask = shown.hidden[:, at]
        if shown.where == "slide":  # all spots lack the same genes
            prepared, hidden = prepared.without(np.flatnonzero(mask[0])), None
        else:
            every = np.arange(len(model.vocabulary))
            hidden = MaskedGenes(every, mask, shown.where == "neighborhood")
        centers = model.encode(prepared).centers(prepared.neighbors[shown.spots], hidden)
        predicted = centers.predict(model.positions([self.panel[i] for i in shown.genes]))
        return Guess(predicted.cpu().numpy())


def models(named: Mapping[str, SageFM], panel: Vocabulary, seed: int) -> list[Predictor]:
    """Make predictors of models, and one of the first's architecture with random weights."""
    found: list[Predictor] = [ModelPredictor(name, m, panel) for name, m in named.items()]
    for first in list(named.values())[:1]:
        blank = SageFM.new(first.vocabulary, first.config, seed=seed)
        found.append(ModelPredictor("random weights", blank, panel, "control"))
    return found


def permuted(guess: Guess, seed: int) -> Guess:
    """Give every spot the answer for another one: what is left needs no place."""
    order = np.random.default_rng(seed).permutation(len(guess.log1p))
    return Guess(guess.log1p[order], None if guess.rate is None else guess.rate[order])


def best_possible(shown: Shown) -> Guess | None:
    """Read the best prediction that there is from a simulated slide."""
    best = shown.view.best
    return None if best is None else Guess(best[np.ix_(shown.spots, shown.genes)])


def _gene_mean(shown: Shown, reference: Reference) -> Guess:
    mean = reference.gene_mean[shown.genes]
    shape = len(shown.spots), len(shown.genes)
    return Guess(np.broadcast_to(mean, shape), np.broadcast_to(rate_of(mean), shape))


def _by_profile(shown: Shown, profile: NDArray[np.float32]) -> Guess:
    rate = shown.scaled_to_depth(profile).astype(np.float32, copy=False)
    return Guess(log1p_mean(rate), rate)


def _slide_profile(shown: Shown) -> Guess | None:
    """Spread the visible depth as the slide does elsewhere."""
    if shown.where == "slide":
        return None
    return _by_profile(shown, _elsewhere(shown))


def _elsewhere(shown: Shown) -> NDArray[np.float32]:
    """Count genes over all spots but the center, or but the whole neighborhood."""
    own = shown.counts
    if shown.where != "center":
        around = _sum_around(shown)
        own = own + around
    left = np.empty(own.shape, dtype=np.float32)
    return np.subtract(shown.view.total, own, out=left, casting="same_kind")


def _sum_around(shown: Shown) -> NDArray[np.float32]:
    """Add up the counts of the 14 neighbors: spots × panel, nothing hidden."""
    neighbors = shown.view.neighbors[shown.spots]
    operator = shown.operator * (neighbors.shape[1] - 1)
    return np.asarray((operator @ shown.view.counts).toarray())


def _neighbor_mean(shown: Shown) -> Guess | None:
    if shown.where != "center":
        return None
    return Guess(np.asarray(shown.around(shown.view.log)[:, shown.genes].toarray()))


def _neighbor_profile(shown: Shown, shrinkage: float) -> Guess | None:
    if shown.where != "center":
        return None
    slide = _elsewhere(shown)
    slide /= np.maximum(slide.sum(axis=1, keepdims=True), 1.0)
    return _by_profile(shown, shrunk(_sum_around(shown), slide, shrinkage))
