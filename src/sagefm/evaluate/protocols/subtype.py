"""The subtype of a sample, read from what its spots have in common."""

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
from sagefm.stats import resampling as statistics
from sagefm.tl.subtyping import (
    LEAST_PATIENTS,
    N_COMPONENTS,
    N_PERMUTATIONS,
    PSEUDOBULK,
    Samples,
    averaged,
    counted,
    evaluated,
    folds_of,
    label,
    label_of,
    labelings,
    listed,
    of_patients,
    out_of_fold,
    pseudobulk,
    scores,
    summed,
)

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
    truths = labelings(samples.truth, n_permutations, seed)
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
        folds = folds_of(samples, by_fold)
        probabilities = out_of_fold(samples, folds, truths)
        of_patient = averaged(samples, probabilities)
        table = scores(truths, of_patient)
        row: dict[str, object] = {
            "method": name, "kind": kind,
            "n_patients": len(samples.truth), "n_slides": len(samples.names),
            **evaluated(samples.truth, of_patient[0], table, seed),
        }  # fmt: skip
        rows.append(row)
        if embedding is control:
            rows.append(_control(row, table[1:]))
        details.append(_detail(cohort, samples, probabilities[0], name, kind))
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


def _samples(cohort: Cohort, key: str) -> tuple[Samples, list[str]]:
    """Decide which slides take part."""
    subtypes = _subtypes(cohort, key)
    notes = []
    if missing := [name for name in cohort if name not in subtypes]:
        notes.append(f"Left out, no {key}: {few(missing, 10)}.")
    of_patient = of_patients(key, subtypes, [cohort.patient(name) for name in subtypes])
    sizes = counted(of_patient)
    kept = [str(name) for name in sizes.index[sizes >= LEAST_PATIENTS]]
    if len(kept) < 2:
        raise InputError(
            f"{key}: at least two classes of {LEAST_PATIENTS} patients are needed "
            f"(patients: {listed(sizes)}); add patients or choose another column"
        )
    if rare := [f"{name} ({n})" for name, n in sizes.items() if name not in kept]:
        notes.append(f"Left out, fewer than {LEAST_PATIENTS} patients: {few(rare, 10)}.")
    names = [name for name, subtype in subtypes.items() if subtype in kept]
    codes, patients = pd.factorize(np.array([cohort.patient(name) for name in names]))
    truth = pd.Categorical(of_patient.loc[patients], categories=kept).codes.astype(np.int64)
    return Samples(names, codes.astype(np.int64), truth, kept), notes


def _subtypes(cohort: Cohort, key: str) -> dict[str, str]:
    """Get the subtype of each slide that has one."""
    if key in cohort.table:
        given = {str(name): label(value) for name, value in cohort.table[key].items()}
        return {name: value for name, value in given.items() if value is not None}
    found, lacking = {}, None
    for name, slide in cohort.items():
        if key not in slide.obs:
            lacking = lacking or name
        elif (value := label_of(name, slide, key)) is not None:
            found[name] = value
    if not found and lacking:
        label_of(lacking, cohort[lacking], key)
    return found


def _features(
    cohort: Cohort, samples: Samples, embedding: Embedding | None, slides: "list[AnnData]"
) -> list[Floats]:
    """Get slides × features for each fold; `slides` is filled by the first who needs them all."""
    n_folds = len(samples.truth)
    if embedding is None:
        return pseudobulk([summed(cohort[name]) for name in samples.names], samples.folds)
    if embedding.kind == "model":  # trained already: a slide at a time, learning from none
        alone = (probes.embedded(embedding, [cohort[name]], [False])[0] for name in samples.names)
        return [_means(alone)] * n_folds
    if not slides:
        slides.extend(cohort[name] for name in samples.names)
    by_fold = probes.embedded_by_fold(embedding, slides, samples.folds)
    return [_means(found) for found in by_fold]


def _means(embedded: Iterable[NDArray[Any]]) -> Floats:
    return np.stack([z.mean(axis=0, dtype=np.float64) for z in embedded])


def _control(row: dict[str, object], null: pd.DataFrame) -> dict[str, object]:
    low, high = statistics.interval(null["auroc"])
    means: dict[str, object] = {str(metric): value for metric, value in null.mean().items()}
    own = {"method": PERMUTED, "kind": "control", "auroc_low": low, "auroc_high": high}
    return row | own | means | {"p": np.nan}


def _detail(
    cohort: Cohort, samples: Samples, probabilities: Floats, method: str, kind: str
) -> pd.DataFrame:
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
        "leave-one-out. The pooled area of a leave-one-out lies below 0.5 where nothing is to be "
        "found, so that it is read against the permutations and not against 0.5.",
    ]
    if control:
        notes.append(
            f"{PERMUTED}: {control.name}, mean over the permutations; its interval is where "
            "95 % of them lie."
        )
    return notes
