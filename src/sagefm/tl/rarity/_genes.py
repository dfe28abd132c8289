"""Find genes that are enriched in some spots, compared with other spots and with neighbors."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.stats import norm, rankdata, wilcoxon

from sagefm._types import Bools, Floats
from sagefm.pp.neighborhood import average
from sagefm.stats.resampling import benjamini_hochberg
from sagefm.tl.rarity._counts import Counted

_SHOWN = 50
"""Maximum number of genes of each population."""
_LEAST_SPOTS = 2.5
"""Minimum number of spots with a gene (three, allowing for rounding)."""
_PSEUDO = 0.1
"""Counts per 10,000 that are added before the logarithm of a ratio."""
_BLOCK = 1024
"""Genes that are ranked together."""


def enrichment(counted: Counted, groups: "pd.Series[str]", labels: list[str]) -> pd.DataFrame:
    """Compare the spots of each label with the others, and with their neighbors.

    Parameters
    ----------
    counted
        The counts.
    groups
        Label of each spot; other values are not compared.
    labels
        The labels to compare.

    Returns
    -------
    The 50 genes of each label with the smallest p, of those with higher counts than in the other
    spots and detected in at least three spots of the label.
    """
    size = np.asarray(counted.matrix.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(1e4, size, out=np.zeros_like(size), where=size > 0)
    scaled = csr_matrix(diags_array(scale) @ counted.matrix)
    tested = _against_others(scaled, counted.genes, groups, labels)
    tables = []
    for label in labels:
        chosen = (groups == label).to_numpy()
        table = tested[label].join(_against_neighbors(scaled, counted, chosen))
        table.insert(0, "population", label)
        detected = table["share"] * chosen.sum() >= _LEAST_SPOTS
        higher = table[detected & (table["log2_fold"] > 0)]
        tables.append(higher.sort_values("p", kind="stable").head(_SHOWN))
    joined: pd.DataFrame = pd.concat(tables)
    return joined.rename_axis("gene").reset_index()


def _against_others(
    scaled: csr_matrix, genes: NDArray[np.str_], groups: "pd.Series[str]", labels: list[str]
) -> dict[str, pd.DataFrame]:
    """Compare log1p counts per 10,000 of each label with the other spots, by rank sums."""
    chosen_by_label = {label: (groups == label).to_numpy() for label in labels}
    p = dict(zip(labels, _rank_sum_p(scaled.log1p(), list(chosen_by_label.values())), strict=True))
    tables = {}
    for label, chosen in chosen_by_label.items():
        inside, outside = scaled[chosen], scaled[~chosen]
        table = pd.DataFrame(
            {
                "log2_fold": _log2_fold(_mean(inside), _mean(outside)),
                "share": inside.getnnz(axis=0) / inside.shape[0],
                "share_others": outside.getnnz(axis=0) / outside.shape[0],
                "p": p[label],
                "q": benjamini_hochberg(p[label]),
            },
            index=genes,
        )
        tables[label] = table
    return tables


def _rank_sum_p(values: csr_matrix, chosen: list[Bools]) -> list[Floats]:
    """Compute two-sided p of Wilcoxon's rank sum, for some spots against the others, per gene.

    The normal approximation without correction for ties, as scanpy's ``rank_genes_groups``.
    """
    n_spots, n_genes = values.shape
    inside = np.array(chosen, dtype=np.float64)
    by_gene, sums = values.tocsc(), np.empty((len(chosen), n_genes))
    for start in range(0, n_genes, _BLOCK):
        genes = slice(start, start + _BLOCK)
        sums[:, genes] = inside @ rankdata(by_gene[:, genes].toarray(), axis=0)
    n = inside.sum(axis=1)[:, None]
    spread = np.sqrt(n * (n_spots - n) * (n_spots + 1) / 12)
    return list(2 * norm.sf(np.abs(sums - n * (n_spots + 1) / 2) / spread))


def _against_neighbors(
    scaled: csr_matrix, counted: Counted, chosen: NDArray[np.bool_]
) -> pd.DataFrame:
    """Compare each spot with the mean of its neighbors, by signed ranks."""
    rows = np.flatnonzero(chosen)
    operator = average(counted.neighbors[rows], center=False, n_spots=len(chosen))
    own, of_neighbors = scaled[rows], operator @ scaled
    difference = np.asarray((own.log1p() - operator @ scaled.log1p()).toarray(), dtype=np.float64)
    varies = (difference != 0).any(axis=0)
    p = np.ones(difference.shape[1])
    p[varies] = wilcoxon(difference[:, varies], axis=0, method="approx").pvalue
    return pd.DataFrame(
        {
            "log2_fold_neighbors": _log2_fold(_mean(own), _mean(csr_matrix(of_neighbors))),
            "p_neighbors": p,
            "q_neighbors": benjamini_hochberg(p),
        },
        index=counted.genes,
    )


def _mean(matrix: csr_matrix) -> NDArray[np.float64]:
    return np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()


def _log2_fold(mean: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log2((mean + _PSEUDO) / (other + _PSEUDO)))
