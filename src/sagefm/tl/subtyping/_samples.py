"""Classes of patients, learned from a few patients: leave one out, score, permute, resample.

A sample is what is learned from: a slide, or all slides of a patient together. A patient is one
observation, however many samples it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from sagefm._errors import InputError
from sagefm._types import Codes, Floats
from sagefm.pp.counts import counts, few
from sagefm.stats.pca import WhitenedPCA
from sagefm.stats.probe import balanced, fit_probes

if TYPE_CHECKING:
    from anndata import AnnData

LEAST_PATIENTS = 3
"""Of a class: with fewer, the probe would learn it from one patient."""
N_COMPONENTS = 10
N_PERMUTATIONS = 200
PSEUDOBULK = "pseudobulk PCA"
_N_BOOTSTRAPS = 2000
_TAILS = [2.5, 97.5]


@dataclass(frozen=True)
class Samples:
    """The samples that take part, and what is known of them."""

    names: list[str]
    patients: Codes
    """Code of the patient of each sample."""
    truth: Codes
    """Code of the class of each patient."""
    classes: list[str]

    @property
    def folds(self) -> list[list[bool]]:
        """For each patient that is held out, which samples are learned from."""
        return [list(self.patients != out) for out in range(len(self.truth))]


@dataclass(frozen=True)
class Fold:
    """Some samples are learned from: features of all samples, reduced by what those teach."""

    known: NDArray[np.bool_]
    """Of each sample, whether it is learned from."""
    reduction: WhitenedPCA
    features: Floats
    """Samples × components, of all samples."""


def label_of(name: str, slide: "AnnData", key: str) -> str | None:
    """Get the one label of a slide; None where no spot has one.

    Raises
    ------
    InputError
        There is no such column, or it has several values.
    """
    if key not in slide.obs:
        raise InputError(
            f"obs[{key!r}]: no such column; there is {few(slide.obs.columns, 20) or 'nothing'}"
        )
    values = [word for word in map(label, slide.obs[key].unique()) if word is not None]
    if len(values) > 1:
        raise InputError(
            f"{name}: obs[{key!r}] has several values ({few(values)}); "
            "a slide has one subtype: give it the same in every spot"
        )
    return values[0] if values else None


def label(value: object) -> str | None:
    """Write a label as a word; None where it is missing or empty."""
    word = str(value).strip()
    return word if word and not pd.isna(value) else None  # type: ignore[call-overload]


def of_patients(key: str, subtypes: Mapping[str, str], patients: Sequence[str]) -> "pd.Series[str]":
    """Get the subtype of each patient, by first occurrence.

    Parameters
    ----------
    key
        What messages call the subtype.
    subtypes
        Sample → subtype.
    patients
        The patient of each.

    Raises
    ------
    InputError
        The samples of a patient have several.
    """
    table = pd.DataFrame({"subtype": list(subtypes.values()), "patient": list(patients)})
    per_patient = table.groupby("patient", sort=False)["subtype"]
    if len(mixed := per_patient.nunique()[lambda n: n > 1]):
        patient = mixed.index[0]
        raise InputError(
            f"{key}: the slides of patient {patient} have several "
            f"({few(table.loc[table['patient'] == patient, 'subtype'].unique())}); "
            "give a patient one, or leave it empty"
        )
    return per_patient.first()


def counted(subtypes: "pd.Series[str]") -> "pd.Series[int]":
    """Count the patients of each class, sorted by its name."""
    return subtypes.value_counts().sort_index()


def listed(sizes: "pd.Series[int]") -> str:
    """Write the classes with their numbers of patients."""
    return ", ".join(f"{name} {n}" for name, n in sizes.items()) or "none"


def summed(slide: "AnnData", layer: str | None = None) -> "pd.Series[float]":
    """Sum the counts of each gene over the spots: one row of pseudobulk."""
    found = counts(slide, layer)
    sums = pd.Series(found.matrix.sum(axis=0, dtype=np.float64).A1, found.var.index)
    return sums.groupby(level=0).sum()


def pseudobulk(sums: "Sequence[pd.Series[float]]", folds: Sequence[ArrayLike]) -> list[Floats]:
    """Reduce log1p CPM of summed counts to components that the known samples of each fold teach.

    Parameters
    ----------
    sums
        For each sample the summed counts of its genes. Genes that all have are used.
    folds
        For each fold which samples are known.

    Returns
    -------
    Samples × components for each fold.

    Raises
    ------
    InputError
        They have no gene in common.
    """
    from sklearn.decomposition import PCA

    table = pd.concat(sums, axis=1, join="inner")
    if table.empty:
        raise InputError("slides: have no gene in common; name the genes alike")
    bulk = table.to_numpy().T
    cpm = np.log1p(1e6 * bulk / np.maximum(bulk.sum(axis=1, keepdims=True), 1))
    by_fold = []
    for fold in folds:
        training = cpm[np.asarray(fold)]
        n_components = min(N_COMPONENTS, len(training) - 1, cpm.shape[1])
        pca = PCA(n_components, svd_solver="full").fit(training)
        by_fold.append(pca.transform(cpm))
    return by_fold


def fold_of(known: ArrayLike, features: Floats) -> Fold:
    """Reduce and standardize: this looks at no label, so that it need not be permuted."""
    known = np.asarray(known, dtype=bool)
    reduction = WhitenedPCA.fit(features[known], N_COMPONENTS)
    return Fold(known, reduction, reduction(features))


def folds_of(samples: Samples, by_fold: Sequence[Floats]) -> list[Fold]:
    """Reduce the features of each fold that holds a patient out."""
    return [fold_of(*pair) for pair in zip(samples.folds, by_fold, strict=True)]


def out_of_fold(samples: Samples, folds: Sequence[Fold], truths: Codes) -> Floats:
    """Get the probabilities of each sample from the fold that holds it out.

    Parameters
    ----------
    folds
        One per patient that is held out.
    truths
        Labelings × patients, codes of classes: the truth, or permutations of it.

    Returns
    -------
    Labelings × samples × classes.
    """
    of_sample = truths[:, samples.patients]
    found = np.empty((*of_sample.shape, len(samples.classes)))
    for fold in folds:
        known = fold.known
        probes = fit_probes(fold.features[known], of_sample[:, known], len(samples.classes))
        found[:, ~known] = probes.probabilities(fold.features[~known])
    return found


def averaged(samples: Samples, probabilities: Floats) -> Floats:
    """Average the probabilities of samples (… × samples × classes) over patients."""
    member = samples.patients == np.arange(len(samples.truth))[:, None]
    return np.asarray((member / member.sum(axis=1, keepdims=True)) @ probabilities)


def labelings(truth: Codes, n_permutations: int, seed: int) -> Codes:
    """Put the truth first, then as many shufflings of it over patients: labelings × patients."""
    rng = np.random.default_rng(seed)
    return np.stack([truth, *(rng.permutation(truth) for _ in range(n_permutations))])


def scores(truths: Codes, probabilities: Floats) -> pd.DataFrame:
    """Score each labeling of the patients.

    Parameters
    ----------
    truths
        Labelings × patients.
    probabilities
        Labelings × patients × classes.

    Returns
    -------
    A row per labeling: auroc, accuracy, balanced_accuracy.
    """
    right = probabilities.argmax(axis=-1) == truths
    weight = balanced(truths, probabilities.shape[-1])
    return pd.DataFrame(
        {
            "auroc": areas(truths, probabilities),
            "accuracy": right.mean(axis=1),
            "balanced_accuracy": (right * weight).mean(axis=1),
        }
    )


def areas(truth: Codes, probabilities: Floats) -> Floats:
    """Average the area under the ROC curve over the classes, each against all others.

    Parameters
    ----------
    truth
        … × patients, codes of classes. Each class occurs, and is not the only one.
    probabilities
        … × patients × classes. Equal ones count as half right.

    Returns
    -------
    One number for each of the leading entries.
    """
    of_class = truth[..., None] == np.arange(probabilities.shape[-1])
    inside = of_class.sum(axis=-2)
    outside = of_class.shape[-2] - inside
    # Mann-Whitney: the area is the share of pairs that are in the right order.
    ranks = np.where(of_class, rankdata(probabilities, axis=-2), 0.0).sum(axis=-2)
    per_class = (ranks - inside * (inside + 1) / 2) / (inside * outside)
    return np.asarray(per_class.mean(axis=-1), dtype=np.float64)


def evaluated(
    truth: Codes, probabilities: Floats, table: pd.DataFrame, seed: int
) -> dict[str, Any]:
    """Score patients, with an interval over them and p by permutation.

    Parameters
    ----------
    truth, probabilities
        Per patient; patients × classes.
    table
        Of :func:`scores`: the first row is that of the truth, the others are permutations.
    seed
        Of the resampling: the same draws the same patients.

    Returns
    -------
    auroc with auroc_low and auroc_high (95 %), accuracy, balanced_accuracy, p.
    """
    found = {str(name): value for name, value in table.iloc[0].items()}
    low, high = np.percentile(_bootstrapped(truth, probabilities, seed), _TAILS)
    reached = int((table["auroc"].iloc[1:] >= found["auroc"] - 1e-12).sum())
    ends = {"auroc_low": float(low), "auroc_high": float(high)}
    return {"auroc": found.pop("auroc"), **ends, **found, "p": (1 + reached) / len(table)}


def _bootstrapped(truth: Codes, probabilities: Floats, seed: int) -> Floats:
    """Resample patients within their classes."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(truth == code) for code in range(probabilities.shape[1])]
    drawn = np.array(
        [np.concatenate([rng.choice(own, len(own)) for own in members])
         for _ in range(_N_BOOTSTRAPS)]
    )  # fmt: skip
    return areas(truth[drawn], probabilities[drawn])
