"""Score predictions of patients: the probability that two of them are in the right order."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sagefm._types import Codes, Floats
from sagefm.stats.probe import balanced
from sagefm.stats.resampling import N_BOOTSTRAPS, interval


def scores(labelings: Codes, probabilities: Floats) -> pd.DataFrame:
    """Score the predictions of each labeling.

    Parameters
    ----------
    labelings
        Labelings × patients.
    probabilities
        Labelings × patients × classes.

    Returns
    -------
    A row per labeling: auroc, accuracy, balanced_accuracy.
    """
    right = probabilities.argmax(axis=-1) == labelings
    weight = balanced(labelings, probabilities.shape[-1])
    return pd.DataFrame(
        {
            "auroc": auroc(labelings, probabilities),
            "accuracy": right.mean(axis=1),
            "balanced_accuracy": (right * weight).mean(axis=1),
        }
    )


def auroc(truth: Codes, probabilities: Floats) -> Floats:
    """Compute the area under the ROC curve of each class against all others, averaged.

    Parameters
    ----------
    truth
        … × patients, codes of classes. There are at least two classes, and each occurs.
    probabilities
        … × patients × classes. A tie counts half.

    Returns
    -------
    One number for each of the leading entries.
    """
    of_class = truth[..., None] == np.arange(probabilities.shape[-1])
    n_inside = of_class.sum(axis=-2)
    n_outside = of_class.shape[-2] - n_inside
    # Mann-Whitney: the area is the fraction of pairs that are in the right order.
    ranks = np.where(of_class, rankdata(probabilities, axis=-2), 0.0).sum(axis=-2)
    per_class = (ranks - n_inside * (n_inside + 1) / 2) / (n_inside * n_outside)
    return np.asarray(per_class.mean(axis=-1), dtype=np.float64)


def evaluate(
    labelings: Codes, probabilities: Floats, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score predictions of patients, with a bootstrap interval and a permutation test.

    Parameters
    ----------
    labelings
        Labelings × patients: the truth first, then permutations of it.
    probabilities
        Labelings × patients × classes.
    seed
        Of the bootstrap over patients: the same seed draws the same patients.

    Returns
    -------
    auroc with auroc_low and auroc_high (95 %), accuracy, balanced_accuracy and p; and the scores of
    the permutations, a row each.
    """
    table = scores(labelings, probabilities)
    truth = {str(name): value for name, value in table.iloc[0].items()}
    low, high = interval(_bootstrap(labelings[0], probabilities[0], seed))
    n_reached = int((table["auroc"].iloc[1:] >= truth["auroc"] - 1e-12).sum())
    ends = {"auroc_low": float(low), "auroc_high": float(high)}
    p = (1 + n_reached) / len(table)
    return {"auroc": truth.pop("auroc"), **ends, **truth, "p": p}, table.iloc[1:]


def _bootstrap(truth: Codes, probabilities: Floats, seed: int) -> Floats:
    """Compute the area for patients that are drawn within their classes."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(truth == code) for code in range(probabilities.shape[1])]
    drawn = np.array(
        [np.concatenate([rng.choice(rows, len(rows)) for rows in members])
         for _ in range(N_BOOTSTRAPS)]
    )  # fmt: skip
    return auroc(truth[drawn], probabilities[drawn])
