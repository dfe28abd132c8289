"""Annotation of held-out patients: labels of spots, predicted from embeddings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.evaluate.baselines.embedding import Embedding, untrained_of
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols import annotation_tables as tables
from sagefm.evaluate.protocols import probe as probes
from sagefm.evaluate.protocols.annotation_tables import SlidePrediction
from sagefm.evaluate.result import Result
from sagefm.pp.labels import labels_of

if TYPE_CHECKING:
    from anndata import AnnData

    Labels = Mapping[str, "pd.Series[str]"]
    Who = tuple[str, str, str, str, str, int]  # the first fields of a prediction

MIN_SHARED = 2
"""Slides in a group have at least so many labels in common."""
MAJORITY = "majority class"
PERMUTED = "permuted labels"


@dataclass(frozen=True)
class _Group:
    """Slides with the same kind of labels; one patient after the other is held out."""

    name: str
    slides: list[str]
    patients: list[str]
    """Of each slide."""

    @property
    def folds(self) -> list[list[bool]]:
        """For each patient that is held out, which slides are trained on."""
        return [
            [patient != held_out for patient in self.patients]
            for held_out in dict.fromkeys(self.patients)
        ]


def annotation(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    label_key: str,
    *,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Result:
    """Predict the labels of each patient's spots from those of all other patients.

    Slides that share at least two labels, directly or through other slides, are a group. In each
    group, one patient after the other is held out, with all sections; embeddings and probes are
    fitted to the other patients. The methods are compared with the most frequent class, and with a
    probe that is fitted to labels permuted within each slide.

    Parameters
    ----------
    cohort
        Slides, some of them labeled.
    embeddings
        The methods.
    label_key
        ``obs`` column with the labels; spots without one are not used.
    seed
        Seed of probes, permutations and resampling.
    progress
        Called with a line before each method.

    Returns
    -------
    A summary for each group and probe; details ``annotation`` (a row per held-out slide, method,
    probe and draw), ``annotation_classes`` (and class) and ``annotation_confusion`` (counts of
    spots by truth and prediction, all slides of a group together).

    Raises
    ------
    InputError
        No slide has the column, or no two patients have two labels in common.
    """
    labels = _labels(cohort, label_key)
    groups, notes = _grouped(cohort, labels)
    if not groups:
        raise InputError(
            f"obs[{label_key!r}]: no two patients share {MIN_SHARED} labels; "
            "use the same names of labels, and give the patient of each slide"
        )
    predictions: list[SlidePrediction] = []
    for group in groups:
        slides = [cohort[name] for name in group.slides]
        group_labels = {name: labels[name] for name in group.slides}
        predictions += _majority(group, group_labels)
        for embedding in embeddings:
            if progress:
                progress(f"annotation, {group.name}: {embedding.name}")
            control = embedding is probes.named_pca(embeddings)
            try:
                for draw, drawn in enumerate(embedding.drawn()):
                    predictions += _evaluate(
                        group, slides, group_labels, drawn, seed, draw, control=control
                    )
            except InputError as error:
                notes.append(f"{embedding.name} is left out of {group.name}: {error}")
        notes += _unpredictable(group, group_labels)
    scores = tables.scores_of(predictions, cohort)
    details = {
        "annotation": scores,
        "annotation_classes": tables.by_class(predictions),
        "annotation_confusion": tables.confusion(predictions),
    }
    names = [group.name for group in groups]
    return Result(
        "annotation",
        tables.summaries(scores, cohort.table["patient"], names, untrained_of(embeddings), seed),
        details,
        [*_readout(embeddings), *probes.remarks(embeddings), *notes],
    )


def _labels(cohort: Cohort, key: str) -> "Labels":
    """Get the labels of the slides that have any."""
    labels, missing = {}, None
    for name, slide in cohort.items():
        try:
            labels[name] = labels_of(slide, key)
        except InputError as error:
            missing = missing or error
    if not labels and missing:
        raise missing
    return {name: column for name, column in labels.items() if column.notna().any()}


def _grouped(cohort: Cohort, labels: "Labels") -> tuple[list[_Group], list[str]]:
    """Group slides that share labels, and note which slides are left out."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    notes = []
    if unlabeled := [name for name in cohort if name not in labels]:
        notes.append(f"Left out, no labels: {few(unlabeled, 10)}.")
    names = list(labels)
    sets = [set(labels[name].dropna()) for name in names]
    shared = [[len(one & other) >= MIN_SHARED for other in sets] for one in sets]
    if not names:
        return [], notes
    codes = connected_components(csr_matrix(np.array(shared, dtype=bool)))[1]
    groups, alone = [], []
    for code in dict.fromkeys(codes):
        members = [name for name, c in zip(names, codes, strict=True) if c == code]
        patients = [cohort.patient(name) for name in members]
        if (n_patients := len(set(patients))) < 2:
            alone += members
            continue
        groups.append(_Group(_group_name(members, labels, n_patients), members, patients))
    if alone:
        notes.append(
            f"Left out, labels that no other patient shares ({MIN_SHARED} at least): "
            f"{few(alone, 10)}."
        )
    return groups, notes


def _group_name(members: list[str], labels: "Labels", n_patients: int) -> str:
    """Name a group after the labels that several of its slides have, the most frequent first."""
    sizes = pd.DataFrame({name: labels[name].value_counts() for name in members})
    shared = sizes[sizes.notna().sum(axis=1) >= 2].sum(axis=1)
    ranked = shared.sort_index().sort_values(ascending=False, kind="stable")
    return f"{few(ranked.index)} ({n_patients} patients)"


def _split(
    group: _Group, labels: "Labels", learn_from: Sequence[bool]
) -> tuple[list[str], list[str]]:
    """Split the slides into training and held-out slides."""
    training = [name for name, trained in zip(group.slides, learn_from, strict=True) if trained]
    return training, [name for name in group.slides if name not in training]


def _truth(labels: "Labels", names: Sequence[str]) -> NDArray[Any]:
    return np.concatenate([labels[name].dropna().to_numpy(dtype=str) for name in names])


def _predict(
    fitted: probes.Probe, z: NDArray[Any], truth: NDArray[Any], who: "Who"
) -> SlidePrediction:
    probabilities = fitted.probabilities(z)
    top = probabilities.argmax(axis=1)
    return SlidePrediction(*who, truth, fitted.classes[top], probabilities[np.arange(len(z)), top])


def _majority(group: _Group, labels: "Labels") -> Iterator[SlidePrediction]:
    """Predict the most frequent class of the training spots, for each table."""
    for learn_from in group.folds:
        training, held_out = _split(group, labels, learn_from)
        training_labels = _truth(labels, training)
        features = np.zeros((len(training_labels), 1))
        fitted = probes.fit_probe("majority", features, training_labels)
        for name in held_out:
            truth = _truth(labels, [name])
            for probe in probes.PROBES:
                who = (group.name, MAJORITY, "baseline", probe, name, 0)
                yield _predict(fitted, np.zeros((len(truth), 1)), truth, who)


def _evaluate(
    group: _Group,
    slides: "Sequence[AnnData]",
    labels: "Labels",
    embedding: Embedding,
    seed: int,
    draw: int,
    *,
    control: bool,
) -> list[SlidePrediction]:
    """Predict from one embedding in all folds; with `control` from permuted labels too."""
    predictions = []
    by_fold = probes.embedded_by_fold(embedding, slides, group.folds)
    for i, (learn_from, embeddings) in enumerate(zip(group.folds, by_fold, strict=True)):
        training, held_out = _split(group, labels, learn_from)
        z = {
            name: rows[labels[name].notna().to_numpy()]
            for name, rows in zip(group.slides, embeddings, strict=True)
        }
        labelings = {(embedding.name, embedding.kind): _truth(labels, training)}
        if control:
            rng = np.random.default_rng([seed, i])
            permuted = [rng.permutation(_truth(labels, [name])) for name in training]
            labelings[PERMUTED, "control"] = np.concatenate(permuted)
        training_z = np.concatenate([z[name] for name in training])
        for (method, kind), labeling in labelings.items():
            for probe in probes.probes_of(embedding.name):
                fitted = probes.fit_probe(
                    probe, training_z, labeling, method=embedding.name, seed=seed
                )
                for name in held_out:
                    who = (group.name, method, kind, probe, name, draw)
                    predictions.append(_predict(fitted, z[name], _truth(labels, [name]), who))
    return predictions


def _unpredictable(group: _Group, labels: "Labels") -> list[str]:
    """Note how many spots no probe can predict."""
    n_unpredictable = 0
    for learn_from in group.folds:
        training, held_out = _split(group, labels, learn_from)
        n_unpredictable += int((~np.isin(_truth(labels, held_out), _truth(labels, training))).sum())
    if not n_unpredictable:
        return []
    n_spots = len(_truth(labels, group.slides))
    return [
        f"{group.name}: {numbered(n_unpredictable, 'spot')} of {n_spots:,} have a class that no "
        "other patient has; no probe can predict it, and they count as wrong."
    ]


def _readout(embeddings: Sequence[Embedding]) -> list[str]:
    described = "; ".join(f"{name}: {what}" for name, what in probes.PROBES.items())
    notes = [
        f"Readout: more than {probes.N_COMPONENTS} columns are reduced to as many principal "
        f"components, columns are standardized, all fitted to training spots ({described}). "
        "Scores are averaged over the slides of a patient, then over patients; balanced accuracy "
        "and macro F1 are over the classes of the held-out slide; ece is the expected calibration "
        "error.",
    ]
    if genes := [one.name for one in embeddings if one.name in probes.GENE_SPACES]:
        notes.append(f"{few(genes)}: all genes are kept, and no network is fitted to them.")
    if pca := probes.named_pca(embeddings):
        notes.append(
            f"{PERMUTED}: {pca.name}, training labels permuted within each slide. "
            f"{MAJORITY}: the most frequent class of the training spots."
        )
    return notes
