"""Methods that predict masked genes: baselines, models and controls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sagefm._adaptation import can_adapt
from sagefm._types import Where
from sagefm.evaluate.baselines import ridge
from sagefm.evaluate.baselines.embedding import Kind
from sagefm.evaluate.baselines.masked import (
    Baseline,
    MaskedSpots,
    PanelSlide,
    Prediction,
    Predictor,
)
from sagefm.evaluate.baselines.reference import Reference
from sagefm.evaluate.baselines.training_free import by_profile, training_free
from sagefm.evaluate.baselines.untrained import untrained
from sagefm.model import SageFM
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Vocabulary
from sagefm.stats.poisson import rate_of

REFERENCE_PROFILE = "reference profile × library size"
GENE_MEAN = "gene mean"


def baselines(reference: Reference, masked: MaskedSpots, seed: int) -> list[Predictor]:
    """Make all baselines; those that are fitted to a reference are left out without one.

    Parameters
    ----------
    reference
        Slides of other patients.
    masked
        All spots that are to be predicted, as the baselines adjust to the slide.
    seed
        Of the samples that baselines are fitted to.
    """
    unfitted = training_free(masked, seed)
    if not reference:
        return unfitted

    def by_ridge(neighbors: bool) -> Callable[[MaskedSpots], Prediction]:
        def predict(masked: MaskedSpots) -> Prediction:
            fitted = ridge.fit(reference, masked, neighbors=neighbors, seed=seed)
            return Prediction(fitted.predict(masked))

        return predict

    return [
        Baseline(GENE_MEAN, lambda masked: _gene_mean(masked, reference)),
        Baseline(REFERENCE_PROFILE, lambda masked: by_profile(masked, reference.profile)),
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
    """Make predictors of models, and of their networks with random weights, adapted alike."""
    by = seed if adapt else None
    blanks = {network.name: network.draw(seed) for network in untrained(named)}
    return [
        *(ModelPredictor(name, model, panel, seed=by) for name, model in named.items()),
        *(ModelPredictor(name, blank, panel, "control", by) for name, blank in blanks.items()),
    ]


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
