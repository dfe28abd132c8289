"""The subtype of a sample, read from what its spots have in common."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._reduction import fit_reduction
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.cohort import Cohort, labels_of
from sagefm.evaluate.metrics import classes, statistics
from sagefm.evaluate.protocols import probe as probes
from sagefm.evaluate.result import Result
from sagefm.pp.counts import counts, few

if TYPE_CHECKING:
    from anndata import AnnData

CAPTION = "Subtype of a sample, leave one patient out"
PSEUDOBULK = "pseudobulk PCA"
PERMUTED = "permuted labels"
LEAST_PATIENTS = 3
"""Of a class: with fewer, the probe would learn it from one patient."""
N_COMPONENTS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Fold:
    """One patient held out: features of the slides, reduced by what the other slides teach."""

    held_out: NDArray[np.bool_]
    """Of each slide."""
    features: Floats
    """Slides × components, of all slides."""


@dataclass(frozen=True)
class _Samples:
    """The slides that take part, and what is known of them."""

    slides: list[str]
    patients: NDArray[np.int64]
    """Code of the patient of each slide."""
    truth: NDArray[np.int64]
    """Code of the class of each patient."""
    classes: list[str]

    @property
    def folds(self) -> list[list[bool]]:
        """For each patient that is held out, which slides are learned from."""
        return [list(self.patients != out) for out in range(len(self.truth))]


def subtype(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    subtype_key: str,
    *,
    seed: int = 0,
    n_permutations: int = 200,
    progress: Callable[[str], object] | None = None,
) -> Result:
    """Predict the subtype of each patient from the slides of all other patients.

    A slide is the mean of the embedding over its spots. One patient after the other is held out;
    embeddings and probe (10 principal components, standardized, logistic regression with balanced
    classes) learn from the other slides. A patient is one observation: the probabilities of its
    slides are averaged. Beside the methods stand the principal components of pseudobulk (counts
    summed over the spots, log1p of counts per million), and the same with permuted labels.

    Parameters
    ----------
    cohort
        Slides of at least two classes.
    embeddings
        The methods.
    subtype_key
        Column of ``cohort.table``, or else of ``obs``, where it is the same for all spots. Slides
        without a value are left out.
    seed
        Of probes, permutation and resampling.
    n_permutations
        Permutations of the labels over patients.
    progress
        Called with a line before each method.

    Returns
    -------
    A summary: area under the ROC curve (each class against all others, averaged) with a bootstrap
    interval over patients (resampled within classes), accuracy, balanced accuracy, p of the area
    by permutation, q (Benjamini-Hochberg over methods). Details ``subtype``: a row per slide and
    method with the probability of each class, from the fold that did not learn from its patient.

    Raises
    ------
    InputError
        No such column, several subtypes in a slide or a patient, or not two classes of three
        patients.
    """
    tell = progress or (lambda _: None)
    samples, notes = _samples(cohort, subtype_key)
    rng = np.random.default_rng(seed)
    permuted = [rng.permutation(samples.truth) for _ in range(n_permutations)]
    control = probes.named_pca(embeddings)
    rows, details = [], []
    slides: list[AnnData] = []
    for embedding in [None, *embeddings]:
        name, kind = (embedding.name, embedding.kind) if embedding else (PSEUDOBULK, "baseline")
        tell(f"subtype: {name}")
        try:
            by_fold = _features(cohort, samples, embedding, slides)
        except InputError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        folds = _reduced(samples, by_fold)
        probabilities = _out_of_fold(samples, folds, samples.truth)
        null = pd.DataFrame(
            [_scores(labels, _of_patients(samples, _out_of_fold(samples, folds, labels)))
             for labels in permuted],
            columns=["auroc", "accuracy", "balanced_accuracy"],
        )  # fmt: skip
        row = {"method": name, "kind": kind} | _evaluated(samples, probabilities, null, seed)
        rows.append(row)
        if embedding is control:
            rows.append(_control(row, null))
        details.append(_detail(cohort, samples, probabilities, name, kind))
    summary = pd.DataFrame(rows)
    summary["q"] = statistics.benjamini_hochberg(summary["p"])
    notes = [*_readout(control, n_permutations), *probes.remarks(embeddings), *notes]
    return Result("subtype", {CAPTION: summary}, {"subtype": pd.concat(details)}, notes)


def require_subtypes(cohort: Cohort, key: str | None) -> None:
    """Refuse slides that a subtype cannot be learned from, before hours are spent on the rest.

    Raises
    ------
    InputError
        As :func:`subtype`, or no column is named.
    """
    if key is None:
        raise InputError("a label per slide is needed; name its column with --subtype-key")
    _samples(cohort, key)


def _samples(cohort: Cohort, key: str) -> tuple[_Samples, list[str]]:
    """Decide which slides take part."""
    subtypes = _subtypes(cohort, key)
    notes = []
    if missing := [name for name in cohort if name not in subtypes]:
        notes.append(f"Left out, no {key}: {few(missing, 10)}.")
    table = pd.DataFrame({"subtype": subtypes})
    table["patient"] = [cohort.patient(str(name)) for name in table.index]
    per_patient = table.groupby("patient", sort=False)["subtype"]
    if len(mixed := per_patient.nunique()[lambda n: n > 1]):
        patient = mixed.index[0]
        raise InputError(
            f"{key}: the slides of patient {patient} have several "
            f"({few(table.loc[table['patient'] == patient, 'subtype'].unique())}); "
            "give a patient one, or leave it empty"
        )
    of_patient = per_patient.first()
    sizes = of_patient.value_counts().sort_index()
    kept = [str(name) for name in sizes.index[sizes >= LEAST_PATIENTS]]
    if len(kept) < 2:
        found = ", ".join(f"{name} {n}" for name, n in sizes.items()) or "none"
        raise InputError(
            f"{key}: at least two classes of {LEAST_PATIENTS} patients are needed "
            f"(patients: {found}); add patients or choose another column"
        )
    if rare := [f"{name} ({n})" for name, n in sizes.items() if name not in kept]:
        notes.append(f"Left out, fewer than {LEAST_PATIENTS} patients: {few(rare, 10)}.")
    table = table[table["subtype"].isin(kept)]
    codes, patients = pd.factorize(table["patient"])
    truth = pd.Categorical(of_patient.loc[patients], categories=kept).codes.astype(np.int64)
    names = [str(name) for name in table.index]
    return _Samples(names, codes.astype(np.int64), truth, kept), notes


def _subtypes(cohort: Cohort, key: str) -> dict[str, str]:
    """Get the subtype of each slide that has one."""
    if key in cohort.table:
        words = cohort.table[key].astype(str).str.strip()
        known = words[cohort.table[key].notna() & (words != "")]
        return {str(name): str(value) for name, value in known.items()}
    found, lacking = {}, None
    for name, slide in cohort.items():
        try:
            values = labels_of(slide, key).dropna().unique()
        except InputError as error:
            lacking = lacking or error
            continue
        if len(values) > 1:
            raise InputError(
                f"{name}: obs[{key!r}] has several values ({few(values)}); "
                "a slide has one subtype: give it the same in every spot"
            )
        if len(values):
            found[name] = str(values[0])
    if not found and lacking:
        raise lacking
    return found


def _features(
    cohort: Cohort, samples: _Samples, embedding: Embedding | None, slides: "list[AnnData]"
) -> list[Floats]:
    """Get slides × features for each fold; `slides` is filled by the first who needs them all."""
    n_folds = len(samples.truth)
    if embedding is None:
        return _pseudobulk(cohort, samples)
    if embedding.kind == "model":  # trained already: a slide at a time, learning from none
        alone = (probes.embedded(embedding, [cohort[name]], [False])[0] for name in samples.slides)
        return [_means(alone)] * n_folds
    if not slides:
        slides.extend(cohort[name] for name in samples.slides)
    by_fold = probes.embedded_by_fold(embedding, slides, samples.folds)
    return [_means(found) for found in by_fold]


def _means(embedded: Iterable[NDArray[Any]]) -> Floats:
    return np.stack([z.mean(axis=0, dtype=np.float64) for z in embedded])


def _pseudobulk(cohort: Cohort, samples: _Samples) -> list[Floats]:
    """Reduce log1p CPM of summed counts to components that each fold's training slides teach."""
    from sklearn.decomposition import PCA

    sums = []
    for name in samples.slides:
        found = counts(cohort[name])
        summed = pd.Series(found.matrix.sum(axis=0, dtype=np.float64).A1, found.var.index)
        sums.append(summed.groupby(level=0).sum())
    table = pd.concat(sums, axis=1, join="inner")
    if table.empty:
        raise InputError("slides: have no gene in common; name the genes alike")
    bulk = table.to_numpy().T
    cpm = np.log1p(1e6 * bulk / np.maximum(bulk.sum(axis=1, keepdims=True), 1))
    by_fold = []
    for fold in samples.folds:
        training = cpm[fold]
        n_components = min(N_COMPONENTS, len(training) - 1, cpm.shape[1])
        pca = PCA(n_components, svd_solver="full").fit(training)
        by_fold.append(pca.transform(cpm))
    return by_fold


def _reduced(samples: _Samples, by_fold: Sequence[Floats]) -> list[_Fold]:
    """Reduce and standardize: this looks at no label, so that it need not be permuted."""
    folds = []
    for learn_from, features in zip(samples.folds, by_fold, strict=True):
        known = np.array(learn_from)
        reduction = fit_reduction(features[known], N_COMPONENTS)
        folds.append(_Fold(~known, reduction(features)))
    return folds


def _out_of_fold(samples: _Samples, folds: Sequence[_Fold], truth: NDArray[np.int64]) -> Floats:
    """Get the probabilities of each slide (× classes) from the fold that holds it out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    of_slide = truth[samples.patients]
    found = np.empty((len(of_slide), len(samples.classes)))
    # Few samples, thousands of fits: this solver takes a few steps, and starts no threads.
    probe = LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky")
    with warnings.catch_warnings():
        # Where features tell nothing it says so, and falls back to another solver.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for fold in folds:
            probe.fit(fold.features[~fold.held_out], of_slide[~fold.held_out])
            found[fold.held_out] = probe.predict_proba(fold.features[fold.held_out])
    return found


def _of_patients(samples: _Samples, probabilities: Floats) -> Floats:
    """Average the probabilities of slides over patients."""
    sums = np.zeros((len(samples.truth), probabilities.shape[1]))
    np.add.at(sums, samples.patients, probabilities)
    return sums / np.bincount(samples.patients)[:, None]


def _scores(truth: NDArray[np.int64], probabilities: Floats) -> tuple[float, float, float]:
    predicted = probabilities.argmax(axis=1)
    return (
        classes.macro_auroc(truth, probabilities),
        classes.accuracy(truth, predicted),
        classes.balanced_accuracy(truth, predicted),
    )


def _evaluated(
    samples: _Samples, probabilities: Floats, null: pd.DataFrame, seed: int
) -> dict[str, object]:
    """Score one method over patients."""
    scores = _of_patients(samples, probabilities)
    auroc, accuracy, balanced = _scores(samples.truth, scores)
    low, high = statistics.interval(_bootstrapped(samples.truth, scores, seed))
    reached = int((null["auroc"] >= auroc - 1e-12).sum())
    return {
        "n_patients": len(samples.truth), "n_slides": len(samples.slides),
        "auroc": auroc, "auroc_low": low, "auroc_high": high,
        "accuracy": accuracy, "balanced_accuracy": balanced,
        "p": (1 + reached) / (1 + len(null)),
    }  # fmt: skip


def _bootstrapped(truth: NDArray[np.int64], scores: Floats, seed: int) -> Floats:
    """Resample patients within their classes; the same seed draws the same patients."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(truth == code) for code in range(scores.shape[1])]
    draws = (
        np.concatenate([rng.choice(own, len(own)) for own in members])
        for _ in range(statistics.N_BOOTSTRAPS)
    )
    return np.array([classes.macro_auroc(truth[drawn], scores[drawn]) for drawn in draws])


def _control(row: dict[str, object], null: pd.DataFrame) -> dict[str, object]:
    low, high = statistics.interval(null["auroc"])
    means = {str(metric): value for metric, value in null.mean().items()}
    own = {"method": PERMUTED, "kind": "control", "auroc_low": low, "auroc_high": high}
    return row | own | means | {"p": np.nan}


def _detail(
    cohort: Cohort, samples: _Samples, probabilities: Floats, method: str, kind: str
) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "slide": samples.slides,
            "patient": [cohort.patient(name) for name in samples.slides],
            "method": method,
            "kind": kind,
            "truth": [samples.classes[code] for code in samples.truth[samples.patients]],
        }
    )
    columns = [f"probability_{name}" for name in samples.classes]
    return table.join(pd.DataFrame(probabilities, columns=columns))


def _readout(control: Embedding | None, n_permutations: int) -> list[str]:
    notes = [
        "Readout: mean over the spots of a slide, at most "
        f"{N_COMPONENTS} principal components, standardized, logistic regression (C = 1, balanced "
        "classes), all fitted on the slides of the other patients; probabilities are averaged over "
        "the slides of a patient.",
        f"p: {n_permutations} permutations of the subtypes over patients, each with the whole "
        "leave-one-out. The pooled area of a leave-one-out lies below 0.5 where nothing is to be "
        "found, so that it is read against the permutations and not against 0.5.",
    ]
    if control:
        notes.append(
            f"{PERMUTED}: {control.name}, mean over the permutations; its interval is where "
            "95 % of them lie."
        )
    return notes
