"""Score predicted classes: accuracy, recall and F1 per class, calibration of probabilities."""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

N_BINS = 15


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Compute the fraction of right predictions; NaN for none."""
    truth = np.asarray(truth)
    return float((truth == np.asarray(predicted)).mean()) if len(truth) else float("nan")


def per_class(truth: ArrayLike, predicted: ArrayLike) -> pd.DataFrame:
    """Measure each class that occurs in the truth; a class that is only predicted has no row.

    Parameters
    ----------
    truth, predicted
        A class per observation, all of one type; none missing.

    Returns
    -------
    Indexed by class (sorted): ``recall``, ``f1`` (both 0 for a class that is never predicted) and
    ``n`` (observations).
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = np.unique(np.asarray(truth))
    if not len(classes):
        return pd.DataFrame({"recall": [], "f1": [], "n": []})
    with warnings.catch_warnings():
        # With many classes among few observations, sklearn warns that this may be a regression.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        _, recall, f1, n = precision_recall_fscore_support(
            np.asarray(truth), np.asarray(predicted), labels=classes, zero_division=0.0
        )
    return pd.DataFrame({"recall": recall, "f1": f1, "n": n}, index=pd.Index(classes, name="class"))


def balanced_accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Average the recall over the classes of the truth; NaN for none."""
    return float(per_class(truth, predicted)["recall"].mean())


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Average F1 over the classes of the truth; NaN for none.

    scikit-learn's default also averages over classes that are predicted and never occur.
    """
    return float(per_class(truth, predicted)["f1"].mean())


def calibration_error(right: ArrayLike, confidence: ArrayLike, n_bins: int = N_BINS) -> float:
    """Compute the expected calibration error: confidence compared with the fraction of hits.

    Parameters
    ----------
    right
        Whether each prediction is right.
    confidence
        The probability of the predicted class, 0 to 1.
    n_bins
        Bins of equal width; their gaps are averaged, weighted by the predictions in them.

    Returns
    -------
    0 (calibrated) to 1; NaN for none, or if a confidence is missing.
    """
    right = np.asarray(right, dtype=np.float64)
    confidence = np.asarray(confidence, dtype=np.float64)
    if not len(right) or np.isnan(confidence).any():
        return float("nan")
    bins = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(right))
