"""Annotation of a patient that was never seen: labels of spots, read from embeddings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics import classes
from sagefm.evaluate.protocols import probe as probes
from sagefm.evaluate.result import Result
from sagefm.pp.labels import labels_of
from sagefm.stats import resampling as statistics

if TYPE_CHECKING:
    from anndata import AnnData

    Labels = Mapping[str, "pd.Series[str]"]
    Who = tuple[str, str, str, str, str]  # the first fields of an answer

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece")
LEAST_SHARED = 2
"""Slides with fewer labels in common are not annotated alike."""
MAJORITY = "majority class"
PERMUTED = "permuted labels"


@dataclass(frozen=True)
class _Group:
    """Slides that are annotated alike; one patient after the other is held out."""

    name: str
    slides: list[str]
    patients: list[str]
    """Of each slide."""

    @property
    def folds(self) -> list[list[bool]]:
        """For each patient that is held out, which slides are learned from."""
        return [[own != out for own in self.patients] for out in dict.fromkeys(self.patients)]


@dataclass(frozen=True)
class _Answer:
    """What one method says of the labeled spots of one held-out slide."""

    group: str
    method: str
    kind: str
    probe: str
    slide: str
    truth: NDArray[Any]
    predicted: NDArray[Any]
    confidence: NDArray[np.float64]


def annotation(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    label_key: str,
    *,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Result:
    """Predict the labels of each patient's spots from those of all other patients.

    Slides that share two labels at least, directly or through other slides, are a group. In each
    group, one patient after the other is held out, with all sections; embeddings and probes learn
    from the others alone. Beside the methods stand the most frequent class, and a probe that
    learned from labels permuted within each slide.

    Parameters
    ----------
    cohort
        Slides, some of them labeled.
    embeddings
        The methods.
    label_key
        ``obs`` column with the labels; spots without one are neither learned from nor judged.
    seed
        Of probes, permutation and resampling.
    progress
        Called with a line before each method.

    Returns
    -------
    A summary for each group and probe; details ``annotation`` (a row per held-out slide, method and
    probe), ``annotation_classes`` (and class) and ``annotation_confusion`` (counts of spots by
    truth and prediction, all slides of a group together).

    Raises
    ------
    InputError
        No slide has the column, or no two patients have two labels in common.
    """
    tell = progress or (lambda _: None)
    labels = _labels(cohort, label_key)
    groups, notes = _grouped(cohort, labels)
    if not groups:
        raise InputError(
            f"obs[{label_key!r}]: no two patients share {LEAST_SHARED} labels; "
            "name labels alike, and the patient of each slide"
        )
    answers: list[_Answer] = []
    for group in groups:
        slides = [cohort[name] for name in group.slides]
        own = {name: labels[name] for name in group.slides}
        answers += _majority(group, own)
        for embedding in embeddings:
            tell(f"annotation, {group.name}: {embedding.name}")
            control = embedding is probes.named_pca(embeddings)
            try:
                answers += _evaluate(group, slides, own, embedding, seed, control=control)
            except InputError as error:
                notes.append(f"{embedding.name} is left out of {group.name}: {error}")
        notes += _unseen(group, own)
    scores = _scores(answers, cohort)
    details = {
        "annotation": scores,
        "annotation_classes": _by_class(answers),
        "annotation_confusion": _confusion(answers),
    }
    return Result(
        "annotation",
        _summaries(scores, cohort.table["patient"], groups, seed),
        details,
        [*_readout(embeddings), *probes.remarks(embeddings), *notes],
    )


def _labels(cohort: Cohort, key: str) -> "Labels":
    """Get the labels of the slides that have any."""
    found, told = {}, None
    for name, slide in cohort.items():
        try:
            labels = labels_of(slide, key)
        except InputError as error:
            told = told or error
            continue
        found[name] = labels
    if not found and told:
        raise told
    return {name: labels for name, labels in found.items() if labels.notna().any()}


def _grouped(cohort: Cohort, labels: "Labels") -> tuple[list[_Group], list[str]]:
    """Group slides that share labels, and tell which slides are left out."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    notes = []
    if bare := [name for name in cohort if name not in labels]:
        notes.append(f"Left out, no labels: {few(bare, 10)}.")
    names = list(labels)
    sets = [set(labels[name].dropna()) for name in names]
    shared = [[len(one & other) >= LEAST_SHARED for other in sets] for one in sets]
    if not names:
        return [], notes
    codes = connected_components(csr_matrix(np.array(shared, dtype=bool)))[1]
    groups, alone = [], []
    for code in dict.fromkeys(codes):
        members = [name for name, own in zip(names, codes, strict=True) if own == code]
        patients = [cohort.patient(name) for name in members]
        if (n_patients := len(set(patients))) < 2:
            alone += members
            continue
        groups.append(_Group(_group_name(members, labels, n_patients), members, patients))
    if alone:
        notes.append(
            f"Left out, labels that no other patient shares ({LEAST_SHARED} at least): "
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
    """Name the slides to learn from and those that are held out."""
    training = [name for name, known in zip(group.slides, learn_from, strict=True) if known]
    return training, [name for name in group.slides if name not in training]


def _truth(labels: "Labels", names: Sequence[str]) -> NDArray[Any]:
    return np.concatenate([labels[name].dropna().to_numpy(dtype=str) for name in names])


def _ask(fitted: probes.Probe, z: NDArray[Any], truth: NDArray[Any], who: "Who") -> _Answer:
    probabilities = fitted.probabilities(z)
    top = probabilities.argmax(axis=1)
    return _Answer(*who, truth, fitted.classes[top], probabilities[np.arange(len(z)), top])


def _majority(group: _Group, labels: "Labels") -> Iterator[_Answer]:
    """Answer with the most frequent class of the training spots, for each table."""
    for learn_from in group.folds:
        training, held_out = _split(group, labels, learn_from)
        known = _truth(labels, training)
        fitted = probes.fit_probe("majority", np.zeros((len(known), 1)), known)
        for name in held_out:
            truth = _truth(labels, [name])
            for probe in probes.PROBES:
                who = (group.name, MAJORITY, "baseline", probe, name)
                yield _ask(fitted, np.zeros((len(truth), 1)), truth, who)


def _evaluate(
    group: _Group,
    slides: "Sequence[AnnData]",
    labels: "Labels",
    embedding: Embedding,
    seed: int,
    *,
    control: bool,
) -> list[_Answer]:
    """Read one embedding in all folds; `control` asks for permuted labels too."""
    answers = []
    by_fold = probes.embedded_by_fold(embedding, slides, group.folds)
    for i, (learn_from, found) in enumerate(zip(group.folds, by_fold, strict=True)):
        training, held_out = _split(group, labels, learn_from)
        z = {
            name: own[labels[name].notna().to_numpy()]
            for name, own in zip(group.slides, found, strict=True)
        }
        given = {(embedding.name, embedding.kind): _truth(labels, training)}
        if control:
            rng = np.random.default_rng([seed, i])
            permuted = [rng.permutation(_truth(labels, [name])) for name in training]
            given[PERMUTED, "control"] = np.concatenate(permuted)
        learned = np.concatenate([z[name] for name in training])
        for (method, kind), known in given.items():
            for probe in probes.probes_of(embedding.name):
                fitted = probes.fit_probe(probe, learned, known, method=embedding.name, seed=seed)
                for name in held_out:
                    who = (group.name, method, kind, probe, name)
                    answers.append(_ask(fitted, z[name], _truth(labels, [name]), who))
    return answers


def _unseen(group: _Group, labels: "Labels") -> list[str]:
    """Tell how many spots no probe could get right."""
    n_unseen = 0
    for learn_from in group.folds:
        training, held_out = _split(group, labels, learn_from)
        n_unseen += int((~np.isin(_truth(labels, held_out), _truth(labels, training))).sum())
    if not n_unseen:
        return []
    n_spots = len(_truth(labels, group.slides))
    return [
        f"{group.name}: {numbered(n_unseen, 'spot')} of {n_spots:,} have a class that no other "
        "patient has; nothing can predict it there, and they count as wrong."
    ]


def _readout(embeddings: Sequence[Embedding]) -> list[str]:
    described = "; ".join(f"{name}: {what}" for name, what in probes.PROBES.items())
    notes = [
        f"Readout: more than {probes.N_COMPONENTS} columns are reduced to as many principal "
        f"components, columns are standardized, all fitted on training spots ({described}). "
        "Scores are averaged over the slides of a patient, then over patients; balanced accuracy "
        "and macro F1 are over the classes of the held-out slide; ece is the expected calibration "
        "error.",
    ]
    if genes := [one.name for one in embeddings if one.name in probes.GENE_SPACES]:
        notes.append(f"{few(genes)}: every gene is kept, and no network is trained on it.")
    if pca := probes.named_pca(embeddings):
        notes.append(
            f"{PERMUTED}: {pca.name}, training labels permuted within each slide. "
            f"{MAJORITY}: the most frequent class of the training spots."
        )
    return notes


def _scores(answers: Sequence[_Answer], cohort: Cohort) -> pd.DataFrame:
    rows = []
    for one in answers:
        right = one.truth == one.predicted
        by_class = classes.per_class(one.truth, one.predicted)
        rows.append(
            {
                "group": one.group,
                "slide": one.slide,
                "patient": cohort.patient(one.slide),
                "method": one.method,
                "kind": one.kind,
                "probe": one.probe,
                "accuracy": classes.accuracy(one.truth, one.predicted),
                "balanced_accuracy": by_class["recall"].mean(),
                "macro_f1": by_class["f1"].mean(),
                "ece": classes.calibration_error(right, one.confidence),
                "n_spots": len(right),
                "n_classes": len(by_class),
            }
        )
    return pd.DataFrame(rows)


def _by_class(answers: Sequence[_Answer]) -> pd.DataFrame:
    parts = []
    for one in answers:
        part = classes.per_class(one.truth, one.predicted).reset_index()
        who = {"group": one.group, "slide": one.slide, "method": one.method, "kind": one.kind}
        parts.append(part.assign(**who, probe=one.probe)[[*who, "probe", *part.columns]])
    return pd.concat(parts, ignore_index=True)


def _confusion(answers: Sequence[_Answer]) -> pd.DataFrame:
    keys = ["group", "method", "probe", "truth", "predicted"]
    spots = pd.concat(
        [
            pd.DataFrame(
                {
                    "group": one.group, "method": one.method, "probe": one.probe,
                    "truth": one.truth, "predicted": one.predicted,
                }
            )
            for one in answers
        ]
    )  # fmt: skip
    return spots.groupby(keys, sort=False).size().rename("n").reset_index()


def _summaries(
    scores: pd.DataFrame, patients: "pd.Series[str]", groups: Sequence[_Group], seed: int
) -> dict[str, pd.DataFrame]:
    tables = {}
    for group in groups:
        for probe in probes.PROBES:
            own = scores[(scores["group"] == group.name) & (scores["probe"] == probe)]
            kinds = dict(zip(own["method"], own["kind"], strict=True))
            table = statistics.summarize(own, METRICS, patients, seed=seed)
            table.insert(1, "kind", table["method"].map(kinds))
            table["verdict"] = statistics.verdicts(
                table, own, "balanced_accuracy", kinds, patients, seed=seed
            )
            caption = f"Annotation, leave one patient out, {probe} probe, {group.name}"
            tables[caption] = table.drop(columns=["ece_low", "ece_high"])
    return tables
