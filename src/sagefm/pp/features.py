"""Tell genes from other features of a matrix: antibodies, guides, peaks, controls."""

import re
from collections.abc import Hashable

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Positions

_COLUMNS = (
    *("feature_types", "feature_type", "featuretype", "featuretypes", "feature_class"),
    *("feature_kind", "modality", "modalities", "assay", "omics", "type", "kind", "class"),
    "feature_biotype",
)
"""Usual names of the ``var`` column with the type of a feature, in lower case."""
_GENES = "gene expression"
"""What 10x calls genes. Where a column has it, every other type is no gene."""
_GENE_TYPES = {
    *(_GENES, "gene", "genes", "rna", "mrna", "gex", "transcript", "transcripts"),
    *("transcriptome", "transcriptomics", "expression"),
}
_OTHER_TYPES = {
    *("antibody capture", "antibody", "antibodies", "protein", "proteins", "prot", "adt", "adts"),
    *("antibody derived tag", "antibody derived tags", "protein expression", "antigen capture"),
    *("crispr guide capture", "crispr", "guide", "guides", "grna", "sgrna", "custom"),
    *("multiplexing capture", "hto", "hashtag", "hashtags", "hashing", "hashtag oligo"),
    *("peak", "peaks", "atac", "chromatin accessibility", "spike in", "spikein", "ercc"),
    *("negative control", "negative control probe", "negative control codeword", "control"),
    *("control probe", "control codeword", "genomic control", "isotype control", "blank"),
    *("blank codeword", "unassigned codeword", "deprecated codeword", "system control"),
    *("negprb", "falsecode", "negative probe", "vdj", "vdj t", "vdj b", "metabolite"),
}
"""Types that are no genes; they may have an ending such as -1."""
_AT_MOST = 2000
"""Features of one type that are kept as a table; there are far more peaks, but not antibodies."""


def feature_types(var: pd.DataFrame) -> tuple[NDArray[np.bool_], pd.Series] | None:
    """Find the features that are no genes from a column of `var` that says so.

    Parameters
    ----------
    var
        A row per feature.

    Returns
    -------
    For each feature whether it is a gene, and its type; None if all are genes.

    Raises
    ------
    InputError
        None is a gene.
    """
    by_name = {_plain(column): i for i, column in reversed(list(enumerate(var.columns)))}
    for name in _COLUMNS:
        if (i := by_name.get(name.replace("_", " "))) is None:
            continue
        types = var.iloc[:, i].astype(object).fillna("").map(str)
        known = types.map({text: _kind(text) for text in types.unique()})
        column: Hashable = var.columns[i]
        is_other = (known == "other").to_numpy(dtype=bool, copy=True)
        if (types.map(_plain) == _GENES).any():
            is_other |= ((known == "unknown") & (types != "")).to_numpy(dtype=bool)
        elif not (known == "gene").any() and not (_plain(column).startswith("feature type")):
            continue
        if len(var) and is_other.all():
            raise InputError(
                f"no feature is a gene: var['{column}'] has {few(types.unique())}; "
                "give the matrix of gene expression"
            )
        if is_other.any():
            return ~is_other, types
    return None


def _plain(text: object) -> str:
    return re.sub(r"[\W_]+", " ", str(text)).strip().lower()


def _kind(text: str) -> str:
    """Tell ``"gene"``, ``"other"`` and ``"unknown"`` types of features."""
    plain = re.sub(r" \d+$", "", _plain(text))
    if plain in _GENE_TYPES:
        return "gene"
    return "other" if plain in _OTHER_TYPES else "unknown"


def modality_of_genes(names: list[str]) -> str:
    """Choose the modality that holds gene expression, by its name.

    Raises
    ------
    InputError
        None is called so, and there are several.
    """
    genes = [name for name in names if _kind(name) == "gene"]
    if genes or len(names) == 1:
        return (genes or names)[0]
    raise InputError(
        f"holds the modalities {few(names, 8) or 'none'}; write the one with the genes as .h5ad"
    )


def split_features(
    matrix: csr_matrix, var: pd.DataFrame, spots: pd.Index
) -> tuple[csr_matrix, pd.DataFrame, dict[str, pd.DataFrame], str]:
    """Separate genes from features of other types.

    Parameters
    ----------
    matrix
        Spots × features.
    var
        A row per feature.
    spots
        The names of the spots.

    Returns
    -------
    The counts of the genes, their rows of `var`, the counts of each other type as a table of
    spots × features by a name for ``obsm`` (such as ``antibody_capture``), and a note or nothing.

    Raises
    ------
    InputError
        No feature is a gene.
    """
    kinds, note = other_features(var)
    if not note:
        return matrix, var, {}, ""
    is_gene = np.ones(len(var), dtype=bool)
    if (found := feature_types(var)) is not None:
        is_gene = found[0]
    tables = {
        key: pd.DataFrame(
            matrix[:, columns].toarray(), index=spots, columns=feature_names(var, columns)
        )
        for key, columns in kinds.items()
    }
    return matrix[:, is_gene], var[is_gene], tables, note


def other_features(var: pd.DataFrame) -> tuple[dict[str, Positions], str]:
    """Find the features of each type that is no gene, by a name for ``obsm``, and a note."""
    found = feature_types(var)
    if found is None:
        return {}, ""
    is_gene, types = found
    kinds: dict[str, Positions] = {}
    kept, left_out = [], []
    for name in types[~is_gene].unique():
        columns = np.flatnonzero(~is_gene & (types == name).to_numpy())
        if len(columns) > _AT_MOST:
            left_out.append(f"{len(columns):,} {name}")
            continue
        key = _plain(name).replace(" ", "_") or "other_features"
        kinds[key] = columns
        kept.append(f"{len(columns):,} {name}")
    note = f"features that are not genes are not used: {few(kept, 10)}" if kept else ""
    if left_out:
        note += (
            f"{'; ' if note else ''}features that are not genes are left out: {few(left_out, 10)}"
        )
    return kinds, note


def feature_names(var: pd.DataFrame, columns: Positions) -> pd.Index:
    """Name features; one that is called as an earlier one is numbered, so that names are unique."""
    names = var.index[columns].astype(str)
    return names if names.is_unique else make_index_unique(names, join=".")
