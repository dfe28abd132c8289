"""Tissue domains: agreement with labels, separation without them, and mixing of slides."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from sagefm._errors import InputError
from sagefm._text import few
from sagefm.evaluate.baselines.embedding import Embedding
from sagefm.evaluate.baselines.pca import pca
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics.clusters import separation, spatial_coherence
from sagefm.evaluate.metrics.mixing import batch_mixing
from sagefm.evaluate.protocols.domain_recovery import READ_COMPONENTS, agreement, cluster
from sagefm.evaluate.result import Result
from sagefm.pp.counts import coordinates
from sagefm.pp.labels import labels_of
from sagefm.pp.neighborhood import nearest
from sagefm.stats.resampling import summarize, verdicts

if TYPE_CHECKING:
    from anndata import AnnData

    Row = dict[str, object]
    Progress = Callable[[str], None]

_DEFAULT_DOMAINS = 7
_N_NEAREST = 7
"""A spot and its six nearest: the first ring of a hexagonal grid."""
_PERMUTED, _PERMUTED_OF = "permuted labels", "PCA"
_AGREEMENT = ["ari", "nmi"]
_SEPARATION = ["silhouette", "calinski_harabasz", "davies_bouldin", "coherence", "largest"]
_PLACE = ["slide", "spot", "x", "y", "label"]


def domains(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    label_key: str | None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    n_domains: int | None = None,
    seed: int = 0,
    progress: "Progress" = lambda line: None,
) -> Result:
    """Find tissue domains with every embedding, by one readout, and score them.

    Parameters
    ----------
    cohort
        Slides. One at a time is in memory; while mixing is measured, the slides of a group.
    embeddings
        The embeddings to compare. One that cannot embed a slide is left out there, with a note.
    label_key
        ``obs`` column with labels. A slide with fewer than two, or without the column, is scored
        without labels; so are all slides if None.
    seeds
        One clustering each.
    n_domains
        Number of domains to find on a slide without labels; 7 if not given.
    seed
        Of principal components, permutations and the resampling of patients.
    progress
        Called with a line before each embedding of a slide.

    Returns
    -------
    Summary: agreement with labels (ari, nmi, their spread over seeds, whether a model beats the
    best baseline); silhouette, Calinski-Harabasz, Davies-Bouldin, spatial coherence and the
    fraction of spots in the largest domain; for slides that have two or more labels in common,
    mixing of slides and separation of labels, each 0 to 1, more is better. Details:
    ``domains`` (a row per slide, method and seed), ``domains_spots`` (a row per spot, a column per
    method with the domains of the first seed), ``domains_mixing`` (a row per group and method).
    """
    rows: list[Row] = []
    spots, failures, names_of_labels = [], [], {}
    for name, slide in cohort.items():
        truth = _labels(slide, label_key)
        labels = set(truth.dropna())
        names_of_labels[name] = labels
        n_clusters = len(labels) if len(labels) > 1 else n_domains or _DEFAULT_DOMAINS
        scored, spot_domains, failed = _score(
            name, slide, truth, embeddings, n_clusters, seeds, seed, progress
        )
        rows += scored
        spots.append(spot_domains)
        failures += failed
    notes = _notes(embeddings, label_key, names_of_labels, seeds, n_domains or _DEFAULT_DOMAINS)
    if not rows:
        return Result("domains", {}, {}, notes + failures)
    scores = pd.DataFrame(rows)
    per_spot = pd.concat(spots, ignore_index=True)
    methods = [one.name for one in embeddings if one.name in per_spot]
    details = {"domains": scores, "domains_spots": per_spot[_PLACE + methods]}
    summary = _summary(scores, [one.name for one in embeddings], cohort.table["patient"], seed)
    mixed, failed = _mixing(cohort, names_of_labels, embeddings, label_key, seed, progress)
    if len(mixed):
        details["domains_mixing"] = mixed
        for group, table in mixed.groupby("group", sort=False):
            summary[f"Batch mixing against biology, {group}"] = table.drop(
                columns=["group", "slides"]
            ).reset_index(drop=True)
    return Result("domains", summary, details, notes + failures + failed)


def _labels(slide: "AnnData", key: str | None) -> "pd.Series[str]":
    if key is None or key not in slide.obs:
        return pd.Series(None, index=slide.obs_names, dtype=object)
    return labels_of(slide, key)


def _score(
    name: str,
    slide: "AnnData",
    truth: "pd.Series[str]",
    embeddings: Sequence[Embedding],
    n_domains: int,
    seeds: Sequence[int],
    seed: int,
    progress: "Progress",
) -> tuple[list["Row"], pd.DataFrame, list[str]]:
    """Score all embeddings on one slide; also return its spots with domains, and failures."""
    xy = coordinates(slide)
    common = pca(slide, n_components=READ_COMPONENTS, seed=seed)
    near = nearest(xy, min(_N_NEAREST, len(xy)))
    labeled = truth.nunique() > 1
    spots = pd.DataFrame(
        {"slide": name, "spot": slide.obs_names, "x": xy[:, 0], "y": xy[:, 1]}
    ).assign(label=truth.to_numpy())
    rows: list[Row] = []
    failures = []
    for embedding in embeddings:
        progress(f"{name}: {embedding.name}")
        try:
            values = embedding.of([slide], [True])[0]
            clusterings = [cluster(embedding.name, values, n_domains, seed=one) for one in seeds]
        except InputError as error:
            failures.append(f"{embedding.name} is left out on {name}: {error}")
            continue
        spots[embedding.name] = clusterings[0]
        sizes = {"n_domains": n_domains, "n_labeled": int(truth.notna().sum()), "n_spots": len(xy)}
        for one, domains in zip(seeds, clusterings, strict=True):
            row: Row = {
                "slide": name,
                "method": embedding.name,
                "kind": embedding.kind,
                "seed": one,
            }
            row |= agreement(truth, domains) if labeled else dict.fromkeys(_AGREEMENT, np.nan)
            row |= separation(common, domains) | {"coherence": spatial_coherence(domains, near)}
            row["largest"] = float((domains == "1").mean())
            rows.append(row | sizes)
            if labeled and embedding.name == _PERMUTED_OF:
                row = {"slide": name, "method": _PERMUTED, "kind": "control", "seed": one}
                row |= agreement(_permuted(truth, [seed, one]), domains)
                rows.append(row | dict.fromkeys(_SEPARATION, np.nan) | sizes)
    return rows, spots, failures


def _permuted(truth: "pd.Series[str]", seed: Sequence[int]) -> "pd.Series[str]":
    """Shuffle the labels among the spots that have one."""
    shuffled = truth.copy()
    labeled = truth.notna()
    shuffled[labeled] = np.random.default_rng(seed).permutation(truth[labeled].to_numpy())
    return shuffled


def _summary(
    scores: pd.DataFrame, methods: Sequence[str], patients: "pd.Series[str]", seed: int
) -> dict[str, pd.DataFrame]:
    order = [*methods, _PERMUTED]
    scores = scores.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    kinds = dict(zip(scores["method"], scores["kind"], strict=True))
    tables = {}
    labeled = scores[scores["ari"].notna()]
    if len(labeled):
        table = summarize(labeled, _AGREEMENT, patients, seed=seed)
        spread = labeled.groupby(["method", "slide"])["ari"].std().groupby("method").mean()
        table["sd_seeds"] = table["method"].map(spread)
        table["verdict"] = verdicts(table, labeled, "ari", kinds, patients, seed=seed)
        tables["Agreement with labels"] = table
    without = scores[scores["method"] != _PERMUTED]
    tables["Without labels, on the principal components of expression"] = summarize(
        without, _SEPARATION, patients, seed=seed
    )
    for table in tables.values():
        table.insert(1, "kind", table["method"].map(kinds))
    return tables


def _mixing(
    cohort: Cohort,
    names_of_labels: Mapping[str, set[str]],
    embeddings: Sequence[Embedding],
    label_key: str | None,
    seed: int,
    progress: "Progress",
) -> tuple[pd.DataFrame, list[str]]:
    """Measure mixing in every group of slides that share labels; also return notes."""
    groups = _groups(names_of_labels)
    if label_key is None or not groups:
        return pd.DataFrame(), []
    if find_spec("scib_metrics") is None:
        return pd.DataFrame(), [
            "Mixing of slides is left out: scib-metrics is missing; pip install sagefm[evaluate]"
        ]
    rows: list[Row] = []
    notes = ["Mixing of slides is measured by scib-metrics on labeled spots; 1 is best."]
    for names in groups:
        slides = [cohort[name] for name in names]
        truth = [labels_of(slide, label_key) for slide in slides]
        labeled = [of_slide.notna().to_numpy() for of_slide in truth]
        labels = np.concatenate([t[kept] for t, kept in zip(truth, labeled, strict=True)])
        batches = np.repeat(names, [kept.sum() for kept in labeled])
        group = {"group": few(names), "slides": ", ".join(names)}
        for embedding in embeddings:
            progress(f"{group['group']} together: {embedding.name}")
            try:
                embedded = embedding.of(slides, [True] * len(slides))
            except InputError as error:
                notes.append(f"{embedding.name} is left out of the mixing of {few(names)}: {error}")
                continue
            space = np.concatenate([z[kept] for z, kept in zip(embedded, labeled, strict=True)])
            row: Row = {**group, "method": embedding.name, "kind": embedding.kind}
            row |= batch_mixing(space, labels, batches, seed=seed)
            rows.append(row | {"n_slides": len(slides), "n_spots": len(space)})
    return pd.DataFrame(rows), notes


def _groups(names_of_labels: Mapping[str, set[str]]) -> list[list[str]]:
    """Group slides that share at least two labels, directly or through other slides."""
    names = list(names_of_labels)
    linked = np.zeros((len(names), len(names)), dtype=bool)
    for i, j in combinations(range(len(names)), 2):
        linked[i, j] = len(names_of_labels[names[i]] & names_of_labels[names[j]]) >= 2
    n_groups, member = connected_components(linked, directed=False)
    groups = [[names[i] for i in np.flatnonzero(member == group)] for group in range(n_groups)]
    return [group for group in groups if len(group) > 1]


def _notes(
    embeddings: Sequence[Embedding],
    label_key: str | None,
    names_of_labels: Mapping[str, set[str]],
    seeds: Sequence[int],
    n_domains: int,
) -> list[str]:
    notes = [
        f"Readout of every method: its {READ_COMPONENTS} leading principal components, clustered "
        "by a Gaussian mixture with one covariance for all domains (best of 5 starts) into as many "
        f"domains as the slide has labels ({n_domains} where it has fewer than two), seeds "
        f"{', '.join(map(str, seeds))}. Leiden is not used: its number of clusters is not fixed.",
        "Without labels: largest is the fraction of spots in the largest domain. If it is near 1, "
        "silhouette, Davies-Bouldin and coherence look good for one domain and a few outliers.",
    ]
    bare = [name for name, labels in names_of_labels.items() if len(labels) < 2]
    if label_key is not None and bare:
        notes.append(f"Fewer than two labels in obs[{label_key!r}]: {few(bare, 20)}.")
    if len(bare) < len(names_of_labels) and any(e.name == _PERMUTED_OF for e in embeddings):
        notes.append(
            f"{_PERMUTED}: domains of {_PERMUTED_OF} compared with labels shuffled on the slide."
        )
    return notes + [f"{one.name}: {one.note}." for one in embeddings if one.note]
