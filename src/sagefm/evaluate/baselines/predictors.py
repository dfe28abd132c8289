"""Methods that predict masked genes: baselines, models and controls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sagefm._adaptation import can_adapt
from sagefm._types import Where
from sagefm.evaluate.baselines import ridge
from sagefm.evaluate.baselines.embedding import Kind
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide, Prediction, Predictor
from sagefm.evaluate.baselines.reference import Reference, shrunk
from sagefm.model import SageFM
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import log1p_mean, rate_of

NEIGHBOR_MEAN = "neighbor mean"
NEIGHBOR_PROFILE = "neighbor profile × library size"
REFERENCE_PROFILE = "reference profile × library size"
SLIDE_PROFILE = "slide profile × library size"
GENE_MEAN = "gene mean"


@dataclass(frozen=True)
class Baseline:
    """A predictor without a network."""

    name: str
    predict: Callable[[MaskedSpots], Prediction | None]
    kind: Kind = "baseline"

    def __call__(self, masked: MaskedSpots) -> Prediction | None:
        """Predict `masked.genes`; None if the method does not apply to these masks."""
        return self.predict(masked)


def baselines(reference: Reference, seed: int) -> list[Predictor]:
    """Make all baselines; those that are fitted to a reference are left out without one."""
    unfitted = [
        Baseline(SLIDE_PROFILE, _slide_profile),
        Baseline(NEIGHBOR_MEAN, _neighbor_mean),
        Baseline(NEIGHBOR_PROFILE, lambda masked: _neighbor_profile(masked, reference.shrinkage)),
    ]
    if not reference:
        return list(unfitted)

    def by_ridge(neighbors: bool) -> Callable[[MaskedSpots], Prediction]:
        def predict(masked: MaskedSpots) -> Prediction:
            fitted = ridge.fit(reference, masked, neighbors=neighbors, seed=seed)
            return Prediction(fitted.predict(masked))

        return predict

    return [
        Baseline(GENE_MEAN, lambda masked: _gene_mean(masked, reference)),
        Baseline(REFERENCE_PROFILE, lambda masked: _by_profile(masked, reference.profile)),
        *unfitted,
        Baseline("ridge on the center", by_ridge(neighbors=False)),
        Baseline("ridge on center and neighbors", by_ridge(neighbors=True)),
    ]


@dataclass
class ModelPredictor:
    """A model; it is given those genes of its vocabulary that are not masked.

    Where genes are masked in the center alone, it is adapted to the slide by `seed`; not without.
    """

    name: str
    model: SageFM
    panel: Vocabulary
    kind: Kind = "model"
    seed: int | None = None
    _last: tuple[PanelSlide, AlignedSlide] | None = field(default=None, repr=False)

    def __call__(self, masked: MaskedSpots) -> Prediction:
        """Predict `masked.genes`."""
        if self._last is None or self._last[0] is not masked.slide:
            self._last = masked.slide, self.model.prepare(masked.slide.source)
        prepared, model = self._last[1], self.model
        at = np.array([self.panel.index[symbol] for symbol in model.vocabulary])
        where: Where | None = masked.where
        mask: NDArray[np.bool_] | None = masked.mask[:, at]
        if where == "slide":  # all spots lack the same genes
            prepared = prepared.without(np.flatnonzero(masked.mask[0, at]))
            mask = where = None
        adapt = self.seed is not None and masked.where == "center" and can_adapt(model.network)
        genes = model.vocabulary.positions([self.panel[i] for i in masked.genes])
        [predicted] = model.predict_masked(
            prepared, [genes], mask=mask, where=where, spots=masked.spots,
            block_size=len(masked.spots), adapt=adapt, seed=self.seed or 0,
        )  # fmt: skip
        return Prediction(predicted.log1p)


def models(
    named: Mapping[str, SageFM], panel: Vocabulary, seed: int, *, adapt: bool
) -> list[Predictor]:
    """Make predictors of models, and one of the first's architecture with random weights.

    The latter is not adapted.
    """
    by = seed if adapt else None
    predictors: list[Predictor] = [
        ModelPredictor(name, model, panel, seed=by) for name, model in named.items()
    ]
    for first in list(named.values())[:1]:
        blank = SageFM.new(first.vocabulary, first.config, seed=seed)
        predictors.append(ModelPredictor("random weights", blank, panel, "control"))
    return predictors


def permuted(prediction: Prediction, seed: int) -> Prediction:
    """Shuffle a prediction over spots: what remains does not depend on the spot."""
    order = np.random.default_rng(seed).permutation(len(prediction.log1p))
    return Prediction(
        prediction.log1p[order], None if prediction.rate is None else prediction.rate[order]
    )


def best_possible(masked: MaskedSpots) -> Prediction | None:
    """Return the best possible prediction of a simulated slide."""
    best = masked.slide.best
    return None if best is None else Prediction(best[np.ix_(masked.spots, masked.genes)])


def _gene_mean(masked: MaskedSpots, reference: Reference) -> Prediction:
    mean = reference.gene_mean[masked.genes]
    shape = len(masked.spots), len(masked.genes)
    return Prediction(np.broadcast_to(mean, shape), np.broadcast_to(rate_of(mean), shape))


def _by_profile(masked: MaskedSpots, profile: NDArray[np.float32]) -> Prediction:
    rate = masked.scaled(profile).astype(np.float32, copy=False)
    return Prediction(log1p_mean(rate), rate)


def _slide_profile(masked: MaskedSpots) -> Prediction | None:
    """Scale the profile of the other spots to the library size of the center."""
    if masked.where == "slide":
        return None
    return _by_profile(masked, _elsewhere(masked))


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


def _neighbor_mean(masked: MaskedSpots) -> Prediction | None:
    if masked.where != "center":
        return None
    return Prediction(np.asarray(masked.neighbor_mean(masked.slide.log)[:, masked.genes].toarray()))


def _neighbor_profile(masked: MaskedSpots, shrinkage: float) -> Prediction | None:
    if masked.where != "center":
        return None
    slide = _elsewhere(masked)
    slide /= np.maximum(slide.sum(axis=1, keepdims=True), 1.0)
    return _by_profile(masked, shrunk(_sum_over_neighbors(masked), slide, shrinkage))
