"""Features of labels: their fractions, which of them touch more than by chance, and interfaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sagefm._types import Floats, Positions

FRACTIONS, ENRICHMENT, INTERFACES = "fractions", "neighbors", "interfaces"
_PSEUDO = 0.5
"""Added to observed and expected contacts, so that their ratio has a logarithm."""


@dataclass(frozen=True)
class LabelCounts:
    """How many spots of a slide have each label, and how many of them touch."""

    spots: "pd.Series[float]"
    """Label → spots."""
    contacts: pd.DataFrame
    """Labels × labels: pairs of spots that touch, symmetric; a pair counts in both halves."""


def count_labels(labels: "pd.Series[str]", edges: Positions) -> LabelCounts:
    """Count labels and contacts.

    Parameters
    ----------
    labels
        Of each spot, None where it has none.
    edges
        Pairs of spots that touch.
    """
    codes, names = pd.factorize(labels, sort=True)
    spots = np.bincount(codes[codes >= 0], minlength=len(names)).astype(float)
    pairs = codes[edges]
    pairs = pairs[(pairs >= 0).all(axis=1)]
    contacts = np.zeros((len(names), len(names)))
    np.add.at(contacts, (pairs[:, 0], pairs[:, 1]), 1)
    contacts = np.triu(contacts + contacts.T - np.diag(np.diag(contacts)))
    contacts += np.triu(contacts, 1).T
    return LabelCounts(pd.Series(spots, names), pd.DataFrame(contacts, index=names, columns=names))


def label_features(slides: Sequence[LabelCounts]) -> dict[str, pd.DataFrame]:
    """Compute slides × features, for each kind of features.

    - fractions: of the spots with a label.
    - neighbors: log of observed over expected pairs of touching spots, for each two labels (and
      each with itself). Expected is the mean over all ways to shuffle the labels of the slide. It
      is 0, as by chance, where a slide lacks one of the labels: it says nothing about their places.
    - interfaces: pairs of touching spots with two different labels, per spot, for each two labels.
      0 where a slide lacks one: there is no interface.
    """
    names = sorted({name for one in slides for name in one.spots.index})
    first, second = np.triu_indices(len(names))
    different = first != second
    rows: dict[str, list[Floats]] = {FRACTIONS: [], ENRICHMENT: [], INTERFACES: []}
    for one in slides:
        spots = np.asarray(one.spots.reindex(names, fill_value=0), dtype=np.float64)
        contacts = one.contacts.reindex(index=names, columns=names, fill_value=0).to_numpy()
        total = max(spots.sum(), 1)
        rows[FRACTIONS].append(spots / total)
        rows[ENRICHMENT].append(_enrichment(spots, contacts)[first, second])
        rows[INTERFACES].append((contacts / total)[first, second][different])
    pairs = [f"{names[a]} - {names[b]}" for a, b in zip(first, second, strict=True)]
    columns = {
        FRACTIONS: names,
        ENRICHMENT: pairs,
        INTERFACES: [pair for pair, keep in zip(pairs, different, strict=True) if keep],
    }
    return {kind: pd.DataFrame(np.stack(rows[kind]), columns=columns[kind]) for kind in rows}


def _enrichment(spots: Floats, contacts: Floats) -> Floats:
    """Compute the log of observed over expected contacts, labels × labels."""
    n = spots.sum()
    n_edges = np.triu(contacts).sum()
    pairs = np.outer(spots, spots)
    np.fill_diagonal(pairs, spots * (spots - 1) / 2)
    expected = n_edges * pairs / max(n * (n - 1) / 2, 1)
    return np.asarray(np.where(pairs > 0, np.log((contacts + _PSEUDO) / (expected + _PSEUDO)), 0.0))
