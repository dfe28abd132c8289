"""Suggest a name for each domain from sets of marker genes, with the evidence."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm._types import Codes, Floats
from sagefm.pp.markers import marker_sets
from sagefm.pp.vocabulary import Vocabulary
from sagefm.tl.description._profiles import Profiles, counting_noise, log2_folds, mean_fold

UNCLEAR = "no clear name"
MarkerSets = str | Sequence[str] | Mapping[str, Sequence[str]] | None
_LEAST_COUNTS = 10
"""Counts of a gene over all slides, from which it is used."""
_LEAST_GENES = 3
"""Genes of a set that are measured, and those that are higher in the domain."""
_CLIP = 6.0
_HIGHER = 1.0
"""Evidence from which a gene counts as higher in a domain: standard deviations."""
_N_BINS = 20
_N_DRAWS = 1000
_CLEAR_Z = 3.0
_OWN = 0.5
"""A name is suggested where the set is at least this fraction as high as in its best domain."""


def name_domains(
    profiles: Mapping[str, Profiles],
    domains: Sequence[str],
    genes: Sequence[str],
    markers: MarkerSets = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every set of markers in every domain, and suggest names.

    A gene's evidence is its log2 fold change against the other domains in units of counting noise
    (from -6 to 6), a set's score their mean. It is compared with 1,000 sets of random genes that
    are detected as much: `z`. The set with the largest `z` gives the name, if `z` is at least 3,
    three of its genes are higher in the domain, and no other domain has more than twice its score.

    Parameters
    ----------
    profiles
        Patient → sums of each domain.
    domains, genes
        Their names.
    markers
        As for :func:`sagefm.pp.marker_sets`, or name → genes.
    seed
        Seed of the random sets.

    Returns
    -------
    A row per domain: domain, name, z, score, n_up (higher genes), n_genes (measured), genes (those
    with the most evidence, and their log2 fold changes), runner_up, runner_up_z. And all scores, a
    row per domain and set.
    """
    sets = _sets(markers)
    total = Profiles.total(list(profiles.values()))
    folds = mean_fold(log2_folds(profiles))
    evidence = np.nan_to_num(np.clip(folds / counting_noise(total), -_CLIP, _CLIP))
    seen = total.counts.sum(axis=0)
    members = {
        name: columns
        for name, columns in _columns(sets, genes, seen).items()
        if len(columns) >= _LEAST_GENES
    }
    if not members:
        logger.warning(
            "no set of markers has %d genes on the slides: domains are not named", _LEAST_GENES
        )
    scores = [
        _scored(name, columns, evidence, folds, seen, domains, genes, seed)
        for name, columns in members.items()
    ]
    columns = ["domain", "set", "z", "score", "n_up", "n_genes", "genes"]
    table = pd.concat(scores, ignore_index=True) if scores else pd.DataFrame(columns=columns)
    return _suggest(table, domains), table


def _sets(markers: MarkerSets) -> dict[str, tuple[str, ...]]:
    if not isinstance(markers, Mapping):
        if markers is not None:
            return marker_sets(markers)
        processes = marker_sets("process")
        return {name: genes for name, genes in marker_sets().items() if name not in processes}
    for name, genes in markers.items():
        if isinstance(genes, str) or not all(isinstance(gene, str) for gene in genes):
            raise InputError(f"markers[{name!r}]: is no list of genes; give name → genes")
    return {str(name): tuple(dict.fromkeys(genes)) for name, genes in markers.items()}


def _columns(
    sets: Mapping[str, Sequence[str]], genes: Sequence[str], seen: Floats
) -> dict[str, Codes]:
    """Find the genes of each set that are measured and seen, also under a previous name."""
    listed = tuple(dict.fromkeys(gene for members in sets.values() for gene in members))
    if not listed:
        return {}
    vocabulary = Vocabulary(listed)
    columns = vocabulary.align(list(genes)).columns
    place = {vocabulary[at]: i for i, at in enumerate(columns.tolist()) if at >= 0}
    found = {
        name: np.array([place[g] for g in members if g in place], dtype=np.int64)
        for name, members in sets.items()
    }
    return {name: at[seen[at] >= _LEAST_COUNTS] for name, at in found.items()}


def _scored(
    name: str,
    columns: Codes,
    evidence: Floats,
    folds: Floats,
    seen: Floats,
    domains: Sequence[str],
    genes: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Score one set in every domain against random genes that are detected as much."""
    scores = evidence[:, columns].mean(axis=1)
    by_count = np.argsort(seen, kind="stable")
    rank = np.empty(len(seen), dtype=np.int64)
    rank[by_count] = np.arange(len(seen))
    width = -(-len(seen) // _N_BINS)
    starts = rank[columns] // width * width
    widths = np.minimum(width, len(seen) - starts)
    # Each set has draws of its own, whatever other sets there are.
    rng = np.random.default_rng([seed, *name.encode()])
    drawn = by_count[starts + (rng.random((_N_DRAWS, len(columns))) * widths).astype(np.int64)]
    null = evidence[:, drawn].mean(axis=2)
    spread = null.std(axis=1)
    z = np.divide(scores - null.mean(axis=1), spread, out=np.zeros_like(scores), where=spread > 0)
    best = np.argsort(-evidence[:, columns], axis=1, kind="stable")[:, :5]
    shown = [
        ", ".join(f"{genes[g]} {folds[d, g]:+.1f}" for g in columns[best[d]] if folds[d, g] > 0)
        for d in range(len(domains))
    ]
    return pd.DataFrame({
        "domain": domains, "set": name, "z": z, "score": scores,
        "n_up": (evidence[:, columns] > _HIGHER).sum(axis=1), "n_genes": len(columns),
        "genes": shown,
    })  # fmt: skip


def _suggest(table: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Choose the set with the largest z in each domain among those that hold."""
    best = table.groupby("set")["score"].transform("max")
    holds = (table["z"] >= _CLEAR_Z) & (table["n_up"] >= _LEAST_GENES)
    holds &= table["score"] >= _OWN * best
    rows = []
    for domain in domains:
        ranked = table[table["domain"] == domain].sort_values("z", ascending=False, kind="stable")
        clear = ranked[holds[ranked.index].astype(bool)]
        row: dict[str, object] = {"domain": domain, "name": UNCLEAR}
        if len(clear):
            first = clear.iloc[0]
            row["name"] = first["set"]
            row |= {key: first[key] for key in ("z", "score", "n_up", "n_genes", "genes")}
            ranked = ranked[ranked["set"] != first["set"]]
        if len(ranked):
            row |= {"runner_up": ranked["set"].iloc[0], "runner_up_z": ranked["z"].iloc[0]}
        rows.append(row)
    columns = [
        "domain", "name", "z", "score", "n_up", "n_genes", "genes", "runner_up", "runner_up_z",
    ]  # fmt: skip
    unclear = [str(row["domain"]) for row in rows if row["name"] == UNCLEAR]
    if unclear and len(table):
        logger.warning(
            "%s without a clear name: %s", numbered(len(unclear), "domain"), few(unclear)
        )
    named = pd.DataFrame(rows).reindex(columns=columns)
    return named.astype({"n_up": "Int64", "n_genes": "Int64"})
