"""How many domains: where views, halved counts and other seeds agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
import pandas as pd

from sagefm._progress import stage
from sagefm._types import Codes, Reals
from sagefm.stats.consensus import consensus
from sagefm.stats.sampling import evenly
from sagefm.tl.clustering._consensus import cluster_views

MOST = 12
_N_STARTS = 10
MAX_SPOTS = 2000
"""Spots that are clustered for each number; they are spread evenly over the tissue."""
_USUAL, _COST = 5.0, 0.4
"""The prior: pathologists draw 3 to 8 regions, and half or twice as many as usual must agree better
by this much. Agreement alone almost always favors two or three."""
UNSTABLE = 0.75
"""Adjusted Rand index with the domains of half of the counts: below it, a warning is due."""
_CONSENSUS_POINTS = 1000
_MORE = (0, 1, 2)
"""Clusters that the views are divided into, beyond the number of domains."""


@dataclass(frozen=True)
class Clusterings:
    """Clusters of all counts and of a random half of them, by several views and numbers.

    Attributes
    ----------
    names
        Of the views.
    whole, halved
        Number of clusters → clusters of each view.
    """

    names: Sequence[str]
    whole: Mapping[int, Sequence[Codes]]
    halved: Mapping[int, Sequence[Codes]]

    @classmethod
    def of(
        cls,
        views: Mapping[str, Reals],
        halved: Mapping[str, Reals],
        numbers: Sequence[int],
        seed: int,
    ) -> Self:
        """Cluster views for some numbers of domains.

        Parameters
        ----------
        views, halved
            Name → spots × components, of all counts and of a random half of them.
        numbers
            Numbers of domains.
        """
        n_spots = len(next(iter(views.values())))
        some = evenly(n_spots, MAX_SPOTS)
        needed = sorted({number + more for number in numbers for more in _MORE})
        found: list[dict[int, list[Codes]]] = []
        for number, one in enumerate((views, halved)):
            chosen = {name: view[some] for name, view in one.items()}
            clusters: dict[int, list[Codes]] = {}
            for n_clusters in needed:
                stage(
                    "clustering %s of the counts: %d domains", ("all", "half")[number], n_clusters
                )
                clusters[n_clusters] = cluster_views(chosen, [n_clusters], seed + number, _N_STARTS)
            found.append(clusters)
        return cls(list(views), *found)

    def of_views(self, names: Sequence[str]) -> Self:
        """Keep some of the views."""
        at = [self.names.index(name) for name in names]
        whole, halved = (
            {n: [codes[i] for i in at] for n, codes in clusters.items()}
            for clusters in (self.whole, self.halved)
        )
        return type(self)(names, whole, halved)

    def joined(self, n_domains: int) -> list[Codes]:
        """Find the domains that the views agree on: of all counts, and of half of them."""
        return [
            consensus([codes for more in _MORE for codes in clusters[n_domains + more]], n_domains,
                      max_points=_CONSENSUS_POINTS).labels
            for clusters in (self.whole, self.halved)
        ]  # fmt: skip

    def stability(self, numbers: Sequence[int]) -> pd.DataFrame:
        """Measure for several numbers of domains, ascending, how well clusterings agree.

        Returns
        -------
        A row per number: mean adjusted Rand index between the clusters of different views
        (`views`), between those of all counts and of half of them, with another seed, view by view
        (`counts`) and by consensus (`consensus`), their mean (`stability`), and `score`: the mean
        less the prior.
        """
        from sklearn.metrics import adjusted_rand_score

        rows = []
        for n in numbers:
            whole, half = self.whole[n], self.halved[n]
            pairs = list(combinations(whole, 2)) or [(whole[0], half[0])]
            row = {
                "n_domains": n,
                "views": np.mean([adjusted_rand_score(a, b) for a, b in pairs]),
                "counts": np.mean(
                    [adjusted_rand_score(a, b) for a, b in zip(whole, half, strict=True)]
                ),
                "consensus": adjusted_rand_score(*self.joined(n)),
            }
            row["stability"] = np.mean([row["views"], row["counts"], row["consensus"]])
            row["score"] = row["stability"] - _COST * np.log2(n / _USUAL) ** 2
            rows.append(row)
        return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> int:
    """Choose the number with the highest score."""
    return int(table["n_domains"][table["score"].argmax()])
