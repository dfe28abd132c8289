"""Leave patients out: what remains to train on, reduced without labels, and predictions.

A sample is a row of features: a slide, or all slides of a patient together. A patient is one
observation, however many samples it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import fit_probes

MIN_PATIENTS = 3
"""Minimum number of patients of a class: two remain to train on."""
N_COMPONENTS = 10
N_PERMUTATIONS = 200
PSEUDOBULK = "pseudobulk PCA"
_CONSTANT = 1e-9
"""Standard deviation, relative to the mean, up to which a feature is constant."""


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
    def fit(
        cls,
        training: Bools,
        features: Floats,
        n_components: int = N_COMPONENTS,
        *,
        scaled: bool = False,
    ) -> "Fold":
        """Reduce and standardize without labels, so that permutations can share the result.

        Parameters
        ----------
        training
            For each sample whether it is trained on.
        features
            Samples × features.
        n_components
            Maximum number of components.
        scaled
            Whether features are divided by their standard deviation first.

        Missing values are replaced by the mean of the training samples.
        """
        if not np.isfinite(features).all():
            features = _filled(features, training)
        rows = features[training]
        if not scaled:
            reduction = WhitenedPCA.fit(rows, n_components)
            return cls(training, reduction, reduction(features))
        center, spread = rows.mean(axis=0), rows.std(axis=0)
        spread = np.where(spread > _CONSTANT * (1 + np.abs(center)), spread, np.inf)
        of_scaled = WhitenedPCA.fit((rows - center) / spread, n_components)
        # In the units of the features; the mean of scaled ones is zero up to rounding.
        reduction = WhitenedPCA(center, of_scaled.axes / spread[:, None])
        return cls(training, reduction, reduction(features))


def _filled(features: Floats, training: Bools) -> Floats:
    """Replace missing values by the mean of the training samples; zero if all are missing."""
    present = np.isfinite(features) & training[:, None]
    means = np.where(present, features, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    return np.where(np.isfinite(features), features, means)


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


def log_cpm(sums: "Sequence[pd.Series[float]]") -> pd.DataFrame:
    """Compute log1p counts per million of the genes that all samples have: samples × genes.

    Parameters
    ----------
    sums
        For each sample the counts of its genes, summed over spots.
    """
    table = pd.concat(sums, axis=1, join="inner")
    counts = table.to_numpy().T
    cpm = np.log1p(1e6 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return pd.DataFrame(cpm, columns=table.index)


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

    cpm = log_cpm(sums).to_numpy()
    if not cpm.size:
        raise InputError("slides: have no gene in common; use the same gene names")
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


def permute(truth: Codes, n_permutations: int, seed: int, strata: Codes | None = None) -> Codes:
    """Stack the truth and permutations of it over patients: labelings × patients.

    Parameters
    ----------
    truth
        A code for each patient.
    n_permutations
        Number of permutations.
    seed
        Of the permutations.
    strata
        Code of each patient, such as its site: permutations are within equal codes.
    """
    rng = np.random.default_rng(seed)
    if strata is None:
        return np.stack([truth, *(rng.permutation(truth) for _ in range(n_permutations))])
    groups = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    labelings = np.tile(truth, (n_permutations + 1, 1))
    for labeling in labelings[1:]:
        for rows in groups:
            labeling[rows] = rng.permutation(truth[rows])
    return labelings
