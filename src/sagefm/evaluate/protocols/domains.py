"""Tissue domains: agreement with labels, separation without them, and mixing of slides."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm.evaluate.baselines.clustering import Clustering
from sagefm.evaluate.baselines.embedding import Embedding, untrained_of
from sagefm.evaluate.baselines.pca import pca
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.metrics.clusters import separation, spatial_coherence
from sagefm.evaluate.protocols.domain_recovery import (
    READ_COMPONENTS,
    agreement,
    cluster,
    leading_components,
)
from sagefm.evaluate.protocols.integration import integration
from sagefm.evaluate.protocols.probe import embedded, remarks
from sagefm.evaluate.result import Result
from sagefm.pp.counts import coordinates
from sagefm.pp.labels import labels_of
from sagefm.pp.neighborhood import nearest
from sagefm.stats.mixture import N_STARTS
from sagefm.stats.resampling import summarize, verdicts

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.tl.clustering import Method

    Row = dict[str, object]
    Progress = Callable[[str], None]

AGREEMENT = "Agreement with labels"
_DEFAULT_DOMAINS = 7
_N_NEAREST = 7
"""A spot and its six nearest: the first ring of a hexagonal grid."""
_PERMUTED, _PERMUTED_OF = "permuted labels", "PCA"
_AGREEMENT = ["ari", "nmi"]
_OTHER_READOUTS: "dict[str, Method]" = {"ari_kmeans": "kmeans", "ari_leiden": "leiden"}
_ALL_AGREEMENT = [*_AGREEMENT, *_OTHER_READOUTS]
_SEPARATION = ["silhouette", "calinski_harabasz", "davies_bouldin", "coherence", "largest"]
_PLACE = ["slide", "spot", "x", "y", "label"]


def domains(
    cohort: Cohort,
    embeddings: Sequence[Embedding],
    label_key: str | None,
    *,
    clusterings: Sequence[Clustering] = (),
    seeds: Sequence[int] = (0, 1, 2),
    n_domains: int | None = None,
    seed: int = 0,
    progress: "Progress" = lambda line: None,
) -> Result:
    """Find tissue domains with every embedding, by the same readouts, and score them.

    Parameters
    ----------
    cohort
        Slides. One at a time is in memory; where slides are compared, those of a group.
    embeddings
        The embeddings to compare. One that cannot embed a slide is left out there, with a note.
    label_key
        ``obs`` column with labels. A slide with fewer than two, or without the column, is scored
        without labels; so are all slides if None.
    clusterings
        Methods that find domains by themselves, to compare with.
    seeds
        One clustering each; a method that is random is drawn anew.
    n_domains
        Number of domains to find on a slide without labels; 7 if not given.
    seed
        Of principal components, permutations and the resampling of patients.
    progress
        Called with a line before each embedding of a slide.

    Returns
    -------
    Summary: agreement with labels (ari and nmi of a Gaussian mixture, ari of k-means and of Leiden,
    spread over seeds, whether a model beats the best baseline and random weights); silhouette,
    Calinski-Harabasz, Davies-Bouldin, spatial coherence and the fraction of spots in the largest
    domain; for slides that have two or more labels in common, what
    :func:`sagefm.evaluate.protocols.integration.integration` returns. Details: ``domains`` (a row
    per slide, method and seed), ``domains_spots`` (a row per spot, a column per method with the
    domains of the first seed), ``domains_transfer`` and ``domains_mixing``.
    """
    rows: list[Row] = []
    spots, failures, names_of_labels = [], [], {}
    alone: list[Embedding | Clustering] = [
        *(one for one in embeddings if not one.joint),
        *clusterings,
    ]
    for name, slide in cohort.items():
        truth = _labels(slide, label_key)
        labels = set(truth.dropna())
        names_of_labels[name] = labels
        n_clusters = len(labels) if len(labels) > 1 else n_domains or _DEFAULT_DOMAINS
        scored, spot_domains, failed = _score(
            name, slide, truth, alone, n_clusters, seeds, seed, progress
        )
        rows += scored
        spots.append(spot_domains)
        failures += failed
    notes = _notes(embeddings, label_key, names_of_labels, seeds, n_domains or _DEFAULT_DOMAINS)
    notes += [f"{one.name}: {one.note}." for one in clusterings if one.note]
    if not rows:
        return Result("domains", {}, {}, notes + failures)
    scores = pd.DataFrame(rows)
    per_spot = pd.concat(spots, ignore_index=True)
    methods = [one.name for one in alone if one.name in per_spot]
    details = {"domains": scores, "domains_spots": per_spot[_PLACE + methods]}
    names = [one.name for one in alone]
    summary = _summary(scores, names, cohort.table["patient"], untrained_of(embeddings), seed)
    if label_key is not None:
        together, compared, more = integration(
            cohort, names_of_labels, embeddings, label_key, seed=seed, progress=progress
        )
        summary, details, notes = summary | together, details | compared, notes + more
    return Result("domains", summary, details, notes + failures)


def _labels(slide: "AnnData", key: str | None) -> "pd.Series[str]":
    if key is None or key not in slide.obs:
        return pd.Series(None, index=slide.obs_names, dtype=object)
    return labels_of(slide, key)


def _score(
    name: str,
    slide: "AnnData",
    truth: "pd.Series[str]",
    methods: "Sequence[Embedding | Clustering]",
    n_domains: int,
    seeds: Sequence[int],
    seed: int,
    progress: "Progress",
) -> tuple[list["Row"], pd.DataFrame, list[str]]:
    """Score all embeddings on one slide; also return its spots with domains, and failures."""
    xy = coordinates(slide)
    readout = _Readout(
        truth if truth.nunique() > 1 else None,
        pca(slide, n_components=READ_COMPONENTS, seed=seed),
        nearest(xy, min(_N_NEAREST, len(xy))),
        n_domains,
    )
    sizes = {"n_domains": n_domains, "n_labeled": int(truth.notna().sum()), "n_spots": len(xy)}
    spots = pd.DataFrame(
        {"slide": name, "spot": slide.obs_names, "x": xy[:, 0], "y": xy[:, 1]}
    ).assign(label=truth.to_numpy())
    rows: list[Row] = []
    failures = []
    for method in methods:
        progress(f"{name}: {method.name}")
        try:
            spaces = _spaces(method, slide)
            clusterings = [
                cluster(method.name, spaces[i % len(spaces)], n_domains, seed=one)
                if isinstance(method, Embedding)
                else method.of(slide, n_domains, one)
                for i, one in enumerate(seeds)
            ]
        except InputError as error:
            failures.append(f"{method.name} is left out on {name}: {error}")
            continue
        spots[method.name] = clusterings[0]
        for i, (one, domains) in enumerate(zip(seeds, clusterings, strict=True)):
            who = {"slide": name, "method": method.name, "kind": method.kind, "seed": one}
            others = readout.others(spaces[i % len(spaces)], one) if spaces else {}
            rows.append({**who, **readout.scores(domains), **others, **sizes})
            if readout.truth is not None and method.name == _PERMUTED_OF:
                row = {"slide": name, "method": _PERMUTED, "kind": "control", "seed": one}
                row |= agreement(_permuted(truth, [seed, one]), domains)
                rows.append(row | dict.fromkeys(_SEPARATION, np.nan) | sizes)
    return rows, spots, failures


def _spaces(method: "Embedding | Clustering", slide: "AnnData") -> list[NDArray[Any]]:
    """Embed a slide by all draws of an embedding; nothing for a method that clusters."""
    if not isinstance(method, Embedding):
        return []
    return [leading_components(embedded(one, [slide], [True])[0]) for one in method.drawn()]


@dataclass(frozen=True)
class _Readout:
    """What the domains of a slide are compared with."""

    truth: "pd.Series[str] | None"
    common: NDArray[np.float32]
    near: NDArray[np.int64]
    n_domains: int

    def scores(self, domains: NDArray[np.str_]) -> dict[str, float]:
        """Score domains with labels, if there are any, and without."""
        empty = dict.fromkeys(_AGREEMENT, np.nan)
        found = agreement(self.truth, domains) if self.truth is not None else empty
        found |= separation(self.common, domains)
        found["coherence"] = spatial_coherence(domains, self.near)
        return found | {"largest": float((domains == "1").mean())}

    def others(self, space: NDArray[Any], seed: int) -> dict[str, float]:
        """Compare the domains of further clustering methods with the labels."""
        found = dict.fromkeys(_OTHER_READOUTS, np.nan)
        for metric, method in _OTHER_READOUTS.items():
            if self.truth is None or (method == "leiden" and find_spec("igraph") is None):
                continue
            with _without_warnings():  # Leiden does not find any number of domains
                domains = cluster("embedding", space, self.n_domains, method=method, seed=seed)
            found[metric] = agreement(self.truth, domains)["ari"]
            if method == "leiden":
                found["n_leiden"] = len(np.unique(domains))
        return found


@contextmanager
def _without_warnings() -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _permuted(truth: "pd.Series[str]", seed: Sequence[int]) -> "pd.Series[str]":
    """Shuffle the labels among the spots that have one."""
    shuffled = truth.copy()
    labeled = truth.notna()
    shuffled[labeled] = np.random.default_rng(seed).permutation(truth[labeled].to_numpy())
    return shuffled


def _summary(
    scores: pd.DataFrame,
    methods: Sequence[str],
    patients: "pd.Series[str]",
    untrained: Mapping[str, str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    order = [*methods, _PERMUTED]
    scores = scores.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    kinds = dict(zip(scores["method"], scores["kind"], strict=True))
    tables = {}
    labeled = scores[scores["ari"].notna()]
    if len(labeled):
        measured = [name for name in _ALL_AGREEMENT if labeled[name].notna().any()]
        table = summarize(labeled, measured, patients, seed=seed)
        spread = labeled.groupby(["method", "slide"])["ari"].std().groupby("method").mean()
        table["sd_seeds"] = table["method"].map(spread)
        table["verdict"] = verdicts(
            table, labeled, "ari", kinds, patients, untrained=untrained, seed=seed
        )
        tables[AGREEMENT] = table
    without = scores[scores["method"] != _PERMUTED]
    tables["Without labels, on the principal components of expression"] = summarize(
        without, _SEPARATION, patients, seed=seed
    )
    for table in tables.values():
        table.insert(1, "kind", table["method"].map(kinds))
    return tables


def _notes(
    embeddings: Sequence[Embedding],
    label_key: str | None,
    names_of_labels: Mapping[str, set[str]],
    seeds: Sequence[int],
    n_domains: int,
) -> list[str]:
    notes = [
        f"Readout of every method: its {READ_COMPONENTS} leading principal components, clustered "
        f"by a Gaussian mixture with one covariance for all domains (best of {N_STARTS} starts) "
        f"into as many domains as the slide has labels ({n_domains} where it has fewer than two), "
        f"seeds {', '.join(map(str, seeds))}. ari_kmeans and ari_leiden: the same components by "
        "k-means (best of 10 starts), and by Leiden at the resolution that comes nearest to this "
        "number of domains. The verdict is about ari.",
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
    if find_spec("igraph") is None:
        notes.append("Leiden is left out: igraph is missing; pip install sagefm[leiden]")
    return notes + remarks(embeddings)
