"""Slides together: labels carried from slide to slide, domains of all slides, and mixing."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Bools, Floats
from sagefm.evaluate.baselines.embedding import Embedding, untrained_of
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics.classes import accuracy, macro_f1
from sagefm.evaluate.metrics.mixing import batch_mixing
from sagefm.evaluate.protocols.domain_recovery import agreement, cluster, leading_components
from sagefm.evaluate.protocols.probe import embedded
from sagefm.pp.labels import labels_of
from sagefm.stats.resampling import summarize, verdicts

if TYPE_CHECKING:
    Row = dict[str, Any]

N_NEIGHBORS = 15
_TRANSFER = ["macro_f1", "accuracy", "ari_carried", "ari_together"]
_MIXING = ["silhouette_label", "clisi", "silhouette_batch", "ilisi"]


def integration(
    cohort: Cohort,
    names_of_labels: Mapping[str, set[str]],
    embeddings: Sequence[Embedding],
    label_key: str,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """Embed slides that share labels together, and measure what can be compared between them.

    An embedding that mixes slides may have lost the tissue. It is therefore judged by labels: each
    slide gets those of the 15 nearest spots of other patients (of other slides, if all are of one
    patient), and these are compared with its own.

    Parameters
    ----------
    cohort
        Slides. Those of a group are in memory together.
    names_of_labels
        Slide → its labels. Slides that share at least two, directly or through others, are a group.
    embeddings
        The methods. One that fails is left out, with a note.
    label_key
        ``obs`` column with the labels.
    seed
        Of principal components, clustering and resampling.
    progress
        Called with a line before each method.

    Returns
    -------
    A table per group: macro F1 of the carried labels (over those labels of a slide that the others
    have), their adjusted Rand index, that of domains of all slides together, mixing, verdict. The
    details ``domains_transfer`` (a row per slide, method and draw) and ``domains_mixing`` (a row
    per group and method). Notes.
    """
    groups = _groups(names_of_labels)
    if not groups:
        return {}, {}, []
    patients, untrained = cohort.table["patient"], untrained_of(embeddings)
    tables, transfers, mixings, notes = {}, [], [], _notes()
    for names in groups:
        group = _SlidesTogether(cohort, names, label_key)
        rows: list[Row] = []
        mixed: list[Row] = []
        for embedding in embeddings:
            progress(f"{group.caption} together: {embedding.name}")
            try:
                scored, mixing = group.score(embedding, seed)
            except InputError as error:
                notes.append(f"{embedding.name} is left out of {group.caption} together: {error}")
                continue
            rows += scored
            mixed.append(mixing)
        if not rows:
            continue
        scores, mixing_table = pd.DataFrame(rows), pd.DataFrame(mixed)
        kinds = dict(zip(scores["method"], scores["kind"], strict=True))
        table = summarize(scores, _TRANSFER, patients, seed=seed)
        table.insert(1, "kind", table["method"].map(kinds))
        for metric in (name for name in _MIXING if name in mixing_table):
            table[metric] = table["method"].map(mixing_table.set_index("method")[metric])
        table["verdict"] = verdicts(
            table, scores, "macro_f1", kinds, patients, untrained=untrained, seed=seed
        )
        tables[f"Slides together: {group.caption}"] = table
        transfers.append(scores)
        mixings.append(mixing_table)
    details = {
        name: pd.concat(parts, ignore_index=True)
        for name, parts in (("domains_transfer", transfers), ("domains_mixing", mixings))
        if parts
    }
    return tables, details, notes


class _SlidesTogether:
    """Slides that share labels, in memory."""

    def __init__(self, cohort: Cohort, names: list[str], label_key: str) -> None:
        self.names, self.caption = names, few(names)
        self.slides = [cohort[name] for name in names]
        truth = [labels_of(slide, label_key) for slide in self.slides]
        self.labeled: list[Bools] = [of_slide.notna().to_numpy() for of_slide in truth]
        self.truth = np.concatenate([one.dropna().to_numpy(dtype=str) for one in truth])
        self.slide_of = np.repeat(names, [kept.sum() for kept in self.labeled])
        patients = [cohort.patient(name) for name in names]
        units = patients if len(set(patients)) > 1 else names
        self.unit_of = np.repeat(units, [kept.sum() for kept in self.labeled])

    def score(self, embedding: Embedding, seed: int) -> tuple[list["Row"], "Row"]:
        """Score all draws of a method: rows per slide and draw, and the mean of its mixing."""
        rows, mixed = [], []
        for draw, drawn in enumerate(embedding.drawn()):
            parts = embedded(drawn, self.slides, [True] * len(self.slides))
            space = leading_components(
                np.concatenate([z[kept] for z, kept in zip(parts, self.labeled, strict=True)])
            )
            together = cluster(embedding.name, space, len(np.unique(self.truth)), seed=seed + draw)
            for name in self.names:
                of_slide = self.slide_of == name
                row: Row = {"group": self.caption, "slide": name, "method": embedding.name}
                row |= {"kind": embedding.kind, "draw": draw} | self._carried(space, of_slide)
                truth = pd.Series(self.truth[of_slide])
                row["ari_together"] = agreement(truth, together[of_slide])["ari"]
                rows.append(row)
            if find_spec("scib_metrics") is not None:
                mixed.append(batch_mixing(space, self.truth, self.slide_of, seed=seed))
        mean = {str(metric): value for metric, value in pd.DataFrame(mixed).mean().items()}
        sizes = {"n_slides": len(self.names), "n_spots": len(self.truth)}
        who = {"group": self.caption, "slides": ", ".join(self.names)}
        return rows, {**who, "method": embedding.name, "kind": embedding.kind, **mean, **sizes}

    def _carried(self, space: Floats, target: Bools) -> "Row":
        """Compare the labels of a slide with those of its nearest spots elsewhere."""
        from sklearn.neighbors import KNeighborsClassifier

        source = self.unit_of != self.unit_of[target][0]
        counted = target & np.isin(self.truth, self.truth[source])
        if not counted.any():
            return dict.fromkeys(_TRANSFER[:3], np.nan) | {"n_counted": 0}
        nearest = KNeighborsClassifier(min(N_NEIGHBORS, int(source.sum())), algorithm="brute")
        carried: NDArray[np.str_] = nearest.fit(space[source], self.truth[source]).predict(
            space[counted]
        )
        truth = self.truth[counted]
        return {
            "macro_f1": macro_f1(truth, carried),
            "accuracy": accuracy(truth, carried),
            "ari_carried": agreement(pd.Series(truth), carried)["ari"],
            "n_counted": int(counted.sum()),
        }


def _groups(names_of_labels: Mapping[str, set[str]]) -> list[list[str]]:
    """Group slides that share at least two labels, directly or through other slides."""
    names = list(names_of_labels)
    linked = np.zeros((len(names), len(names)), dtype=bool)
    for i, j in combinations(range(len(names)), 2):
        linked[i, j] = len(names_of_labels[names[i]] & names_of_labels[names[j]]) >= 2
    n_groups, member = connected_components(linked, directed=False)
    groups = [[names[i] for i in np.flatnonzero(member == group)] for group in range(n_groups)]
    return [group for group in groups if len(group) > 1]


def _notes() -> list[str]:
    notes = [
        f"Slides together: labels are carried to each slide from its {N_NEIGHBORS} nearest spots "
        "of other patients (of other slides, if all are of one patient), in the 20 leading "
        "components of all labeled spots; macro_f1 and ari_carried compare them with its own, over "
        "the labels that the others have. ari_together compares domains of all slides together, "
        "one mixture, with the labels of each slide. Mixing (ilisi; 1 is best) alone means "
        "nothing: an embedding without tissue mixes best."
    ]
    if find_spec("scib_metrics") is None:
        notes.append(
            "Mixing of slides is left out: scib-metrics is missing; pip install sagefm[evaluate]"
        )
    return notes
