"""Fit a probe to pooled slides, once without each patient and once to all."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from sagefm._types import Codes, Floats, Singles
from sagefm.stats.outcomes.folds import N_COMPONENTS, Fold, Samples, out_of_fold
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import fit_probes
from sagefm.tl.patients import Readout, SpotFeatures, drawn_spots, mean, pool, quantiles

Pooling = Literal["mean", "quantiles"]


def fit_readouts(
    embeddings: Sequence[Singles],
    patients: Codes,
    samples: Samples,
    labelings: Codes,
    pooling: Pooling,
    seed: int,
) -> tuple[Floats, list[Readout]]:
    """Fit to all patients but one, for each of them in turn, and then to all.

    Parameters
    ----------
    embeddings
        Of each slide, spots × width; for ``"mean"`` their mean, one row, is enough.
    patients
        Code of the patient of each slide.
    samples
        The patients, each a sample of its own.
    labelings
        Labelings × patients, the truth first.
    pooling
        How spots become features.
    seed
        Of the spots that components are fitted to.

    Returns
    -------
    Out-of-fold probabilities, labelings × patients × classes; and the readouts of the truth, one
    for each patient that is left out, then the one of all patients.
    """
    drawn = drawn_spots(embeddings, seed)
    n_patients, n_classes = len(samples.truth), len(samples.classes)
    folds, readouts = [], []
    for training in [*samples.training, np.ones(n_patients, dtype=bool)]:
        spot_features: SpotFeatures = mean
        if pooling == "quantiles":
            spots = [z for z, patient in zip(drawn, patients, strict=True) if training[patient]]
            reduction = WhitenedPCA.fit(np.concatenate(spots), N_COMPONENTS)
            spot_features = partial(quantiles, reduction=reduction)
        fold = Fold.fit(training, pool(embeddings, patients, n_patients, spot_features))
        probe = fit_probes(fold.features[training], labelings[:1, training], n_classes)
        folds.append(fold)
        readouts.append(
            Readout.of(spot_features, fold.reduction, probe.weights[0], probe.intercepts[0])
        )
    return out_of_fold(samples, folds[:-1], labelings), readouts
