"""Predict classes of patients from few patients: leave one out, score, permute, bootstrap.

A sample is a row of features: a slide, or all slides of a patient together. A patient is one
observation, however many samples it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sagefm._errors import InputError
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import balanced, fit_probes
from sagefm.stats.resampling import N_BOOTSTRAPS, interval

MIN_PATIENTS = 3
"""Minimum number of patients of a class: two remain to train on."""
N_COMPONENTS = 10
N_PERMUTATIONS = 200
PSEUDOBULK = "pseudobulk PCA"


@dataclass(frozen=True)
class Samples:
    """Samples, their patients and the classes of these."""

    names: list[str]
    patients: Codes
    """Code of the patient of each sample."""
    truth: Codes
    """Code of the class of each patient."""
    classes: list[str]

    @property
    def training(self) -> list[Bools]:
        """For each patient that is left out, which samples remain to train on."""
        return [self.patients != patient for patient in range(len(self.truth))]


@dataclass(frozen=True)
class Fold:
    """Features of all samples, reduced to the principal components of the training samples."""

    training: Bools
    """For each sample whether it is trained on."""
    reduction: WhitenedPCA
    features: Floats
    """Samples × components."""

    @classmethod
    def fit(cls, training: Bools, features: Floats) -> "Fold":
        """Reduce and standardize without labels, so that permutations can share the result."""
        reduction = WhitenedPCA.fit(features[training], N_COMPONENTS)
        return cls(training, reduction, reduction(features))


def classes_of_patients(
    key: str, classes: Mapping[str, str], patients: Sequence[str]
) -> "pd.Series[str]":
    """Get the class of each patient, in order of first occurrence.

    Parameters
    ----------
    key
        Name of the label, for messages.
    classes
        Sample → class.
    patients
        The patient of each sample.

    Raises
    ------
    InputError
        The samples of a patient have several classes.
    """
    table = pd.DataFrame({"class": list(classes.values()), "patient": list(patients)})
    for patient, values in table.groupby("patient", sort=False)["class"]:
        if values.nunique() > 1:
            raise InputError(
                f"{key}: the slides of patient {patient} have several "
                f"({', '.join(values.unique())}); give a patient one, or leave it empty"
            )
    return table.groupby("patient", sort=False)["class"].first()


def class_sizes(classes: "pd.Series[str]") -> "pd.Series[int]":
    """Count the patients of each class, sorted by name."""
    return classes.value_counts().sort_index()


def describe_sizes(sizes: "pd.Series[int]") -> str:
    """Write the classes and their numbers of patients as text."""
    return ", ".join(f"{name} {n}" for name, n in sizes.items()) or "none"


def pseudobulk(sums: "Sequence[pd.Series[float]]", training: Sequence[Bools]) -> list[Floats]:
    """Compute principal components of log1p counts per million, one set per fold.

    Parameters
    ----------
    sums
        For each sample the counts of its genes, summed over spots. Only genes that all samples
        have are used.
    training
        For each fold the samples that the components are fitted to.

    Returns
    -------
    Samples × components for each fold.

    Raises
    ------
    InputError
        The samples have no gene in common.
    """
    from sklearn.decomposition import PCA

    table = pd.concat(sums, axis=1, join="inner")
    if table.empty:
        raise InputError("slides: have no gene in common; use the same gene names")
    counts = table.to_numpy().T
    cpm = np.log1p(1e6 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    features = []
    for rows in training:
        n_components = min(N_COMPONENTS, int(rows.sum()) - 1, cpm.shape[1])
        pca = PCA(n_components, svd_solver="full").fit(cpm[rows])
        features.append(pca.transform(cpm))
    return features


def out_of_fold(samples: Samples, folds: Sequence[Fold], labelings: Codes) -> Floats:
    """Predict the samples of each patient by a probe that was fitted without them.

    Parameters
    ----------
    samples
        The samples.
    folds
        One for each patient that is left out.
    labelings
        Labelings × patients, codes of classes: the truth, or permutations of it.

    Returns
    -------
    Probabilities, labelings × samples × classes.
    """
    labels = labelings[:, samples.patients]
    probabilities = np.empty((*labels.shape, len(samples.classes)))
    for fold in folds:
        rows = fold.training
        probes = fit_probes(fold.features[rows], labels[:, rows], len(samples.classes))
        probabilities[:, ~rows] = probes.probabilities(fold.features[~rows])
    return probabilities


def average_over_patients(samples: Samples, probabilities: Floats) -> Floats:
    """Average probabilities (… × samples × classes) over the samples of each patient."""
    member = samples.patients == np.arange(len(samples.truth))[:, None]
    return np.asarray((member / member.sum(axis=1, keepdims=True)) @ probabilities)


def permute(truth: Codes, n_permutations: int, seed: int) -> Codes:
    """Stack the truth and permutations of it over patients: labelings × patients."""
    rng = np.random.default_rng(seed)
    return np.stack([truth, *(rng.permutation(truth) for _ in range(n_permutations))])


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
