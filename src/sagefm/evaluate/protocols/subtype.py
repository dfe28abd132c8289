"""Predict the subtype of patients from mean embeddings of their slides."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Floats
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols import probe as probes
from sagefm.evaluate.result import Result
from sagefm.pp.counts import counts
from sagefm.pp.labels import labels_of, word_of
from sagefm.stats.outcomes.folds import (
    MIN_PATIENTS,
    N_COMPONENTS,
    N_PERMUTATIONS,
    PSEUDOBULK,
    Fold,
    Samples,
    average_over_patients,
    class_sizes,
    classes_of_patients,
    describe_sizes,
    out_of_fold,
    permute,
    pseudobulk,
)
from sagefm.stats.outcomes.score import evaluate
from sagefm.stats.resampling import benjamini_hochberg, interval
from sagefm.tl.subtyping import label_of_slide

if TYPE_CHECKING:
    from anndata import AnnData

CAPTION = "Subtype of a sample, leave one patient out"
PERMUTED = "permuted labels"


def subtype(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    subtype_key: str,
    *,
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
    progress: Callable[[str], object] | None = None,
) -> Result:
    """Predict the subtype of each patient from the slides of all other patients.

    The features of a slide are the mean embedding of its spots. Each patient in turn is left out;
    embeddings and probe (10 principal components, standardized, logistic regression with balanced
    classes) are fitted to the other slides. A patient is one observation: the probabilities of its
    slides are averaged. The methods are compared with principal components of pseudobulk (counts
    summed over the spots, log1p of counts per million), and with permuted labels.

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
        Seed of permutations and bootstrap.
    n_permutations
        Permutations of the labels over patients.
    progress
        Called with a line before each method.

    Returns
    -------
    A summary: area under the ROC curve (each class against all others, averaged) with a bootstrap
    interval over patients (resampled within classes), accuracy, balanced accuracy, p of the area
    by permutation, q (Benjamini-Hochberg over methods). Details ``subtype``: a row per slide and
    method with the probability of each class, from the fold that left its patient out.

    Raises
    ------
    InputError
        No such column, several subtypes in a slide or a patient, or not two classes of three
        patients.
    """
    report = progress or (lambda _: None)
    embeddings = [one for one in embeddings if not one.joint]  # they remove what is predicted
    samples, notes = _samples(cohort, subtype_key)
    labelings = permute(samples.truth, n_permutations, seed)
    control = probes.named_pca(embeddings)
    rows, details = [], []
    slides: list[AnnData] = []
    for embedding in [None, *embeddings]:
        name, kind = (embedding.name, embedding.kind) if embedding else (PSEUDOBULK, "baseline")
        report(f"subtype: {name}")
        try:
            features = _features(cohort, samples, embedding, slides)
        except InputError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        folds = [Fold.fit(*pair) for pair in zip(samples.training, features, strict=True)]
        probabilities = out_of_fold(samples, folds, labelings)
        values, permuted = evaluate(labelings, average_over_patients(samples, probabilities), seed)
        row: dict[str, object] = {
            "method": name, "kind": kind,
            "n_patients": len(samples.truth), "n_slides": len(samples.names), **values,
        }  # fmt: skip
        rows.append(row)
        if embedding is control:
            rows.append(_permuted_row(row, permuted))
        details.append(_details(cohort, samples, probabilities[0], name, kind))
    summary = pd.DataFrame(rows)
    summary["q"] = benjamini_hochberg(summary["p"])
    notes = [*_readout(control, n_permutations), *probes.remarks(embeddings), *notes]
    return Result("subtype", {CAPTION: summary}, {"subtype": pd.concat(details)}, notes)


def require_subtypes(cohort: Cohort, key: str | None) -> None:
    """Check that subtypes can be predicted from these slides, before other protocols start.

    Raises
    ------
    InputError
        As :func:`subtype`, or no column is named.
    """
    if key is None:
        raise InputError("a label per slide is needed; name its column with --subtype-key")
    _samples(cohort, key)


def _samples(cohort: Cohort, key: str) -> tuple[Samples, list[str]]:
    """Choose the slides that take part; note those that are left out."""
    subtypes = _subtypes(cohort, key)
    notes = []
    if missing := [name for name in cohort if name not in subtypes]:
        notes.append(f"Left out, no {key}: {few(missing, 10)}.")
    classes = classes_of_patients(key, subtypes, [cohort.patient(name) for name in subtypes])
    sizes = class_sizes(classes)
    common = [str(name) for name in sizes.index[sizes >= MIN_PATIENTS]]
    if len(common) < 2:
        raise InputError(
            f"{key}: at least two classes of {MIN_PATIENTS} patients are needed "
            f"(patients: {describe_sizes(sizes)}); add patients or choose another column"
        )
    if rare := [f"{name} ({n})" for name, n in sizes.items() if name not in common]:
        notes.append(f"Left out, fewer than {MIN_PATIENTS} patients: {few(rare, 10)}.")
    names = [name for name, subtype in subtypes.items() if subtype in common]
    codes, patients = pd.factorize(np.array([cohort.patient(name) for name in names]))
    truth = pd.Categorical(classes.loc[patients], categories=common).codes.astype(np.int64)
    return Samples(names, codes.astype(np.int64), truth, common), notes


def _subtypes(cohort: Cohort, key: str) -> dict[str, str]:
    """Get the subtype of each slide that has one."""
    labels: dict[str, str | None] = {}
    if key in cohort.table:
        labels = {str(name): word_of(value) for name, value in cohort.table[key].items()}
    else:
        lacking = None
        for name, slide in cohort.items():
            if key in slide.obs:
                labels[name] = label_of_slide(name, slide, key)
            else:
                lacking = lacking or name
        if lacking and not any(labels.values()):
            labels_of(cohort[lacking], key)  # raises an error that lists the columns
    return {name: label for name, label in labels.items() if label is not None}


def _features(
    cohort: Cohort, samples: Samples, embedding: Embedding | None, slides: "list[AnnData]"
) -> list[Floats]:
    """Get slides × features for each fold.

    The first embedding that needs all slides at once loads them into `slides`.
    """
    n_folds = len(samples.truth)
    if embedding is None:
        return pseudobulk([_sums(cohort[name]) for name in samples.names], samples.training)
    if embedding.kind == "model":  # already trained: one slide at a time is enough
        alone = (probes.embedded(embedding, [cohort[name]], [False])[0] for name in samples.names)
        return [_means(alone)] * n_folds
    if not slides:
        slides.extend(cohort[name] for name in samples.names)
    training = [list(rows) for rows in samples.training]
    return [_means(z) for z in probes.embedded_by_fold(embedding, slides, training)]


def _sums(slide: "AnnData") -> "pd.Series[float]":
    """Sum the counts of each gene over the spots."""
    raw = counts(slide)
    sums = pd.Series(raw.matrix.sum(axis=0, dtype=np.float64).A1, raw.var.index)
    return sums.groupby(level=0).sum()


def _means(embeddings: Iterable[NDArray[Any]]) -> Floats:
    return np.stack([z.mean(axis=0, dtype=np.float64) for z in embeddings])


def _permuted_row(row: dict[str, object], permuted: pd.DataFrame) -> dict[str, object]:
    """Summarize the permutations of a method as a control."""
    low, high = interval(permuted["auroc"])
    means: dict[str, object] = {str(metric): value for metric, value in permuted.mean().items()}
    facts = {"method": PERMUTED, "kind": "control", "auroc_low": low, "auroc_high": high}
    return row | facts | means | {"p": np.nan}


def _details(
    cohort: Cohort, samples: Samples, probabilities: Floats, method: str, kind: str
) -> pd.DataFrame:
    """Tabulate the out-of-fold probabilities of each slide."""
    table = pd.DataFrame(
        {
            "slide": samples.names,
            "patient": [cohort.patient(name) for name in samples.names],
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
        "leave-one-out. Without any signal the pooled area of a leave-one-out lies below 0.5: it "
        "is compared with the permutations and not with 0.5.",
    ]
    if control:
        notes.append(
            f"{PERMUTED}: {control.name}, mean over the permutations; its interval is where "
            "95 % of them lie."
        )
    return notes
