"""Name the genes of a slide: by symbol if known, with their Ensembl ids."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sagefm import _keys
from sagefm.pp.counts import Counts
from sagefm.pp.gene_forms import clean_id, name_kind, recognize
from sagefm.pp.gene_names import known_gene_names

_ID_COLUMNS = (
    *("geneids", "geneid", "ensemblid", "ensemblids", "ensembl", "ensemblgeneid", "featureid"),
    *("geneensembl", "featureids", "ensg", "accession", "id"),
)
"""Usual names of a column of Ensembl ids: their letters."""
_SYMBOL_COLUMNS = (
    *("genename", "genenames", "genesymbol", "genesymbols", "symbol", "symbols", "featurename"),
    *("hgncsymbol", "gene", "geneshortname", "externalgenename", "features", "name", "index"),
)
"""Usual names of a column of gene symbols: their letters."""


def name_genes(found: Counts) -> tuple[Counts, list[str]]:
    """Name the genes of a slide by symbol if known, and keep their Ensembl ids.

    Names are read as :func:`~sagefm.pp.gene_forms.recognize` reads them. If they are not symbols
    even so, a column of ``var`` that has symbols is used. In a slide with genes of human and
    another species, the latter are left out.

    Parameters
    ----------
    found
        Raw counts with their table of genes.

    Returns
    -------
    The counts with genes as index of ``var`` (a gene may have several columns) and Ensembl ids, if
    known, in ``var["gene_ids"]``; and notes for the user.
    """
    var = found.var.copy()
    var.index = plain(var.index).rename(None)
    notes: list[str] = []
    column = _column_of(var, _ID_COLUMNS, ensembl=True)
    ids = None if column is None else [clean_id(value) for value in plain(var[column])]
    forms = recognize(var.index.tolist(), ids)
    kind, example = name_kind(forms.names)
    if kind not in ("symbol", "mouse"):
        symbols = _column_of(var, _SYMBOL_COLUMNS, ensembl=False)
        if kind.startswith("ensembl") and symbols is not None:
            ids = forms.names
            notes.append(f"genes are named by var['{symbols}'], Ensembl ids are in var['gene_ids']")
        elif not kind.startswith("ensembl") and (symbols := symbols or column) is not None:
            notes.append(f"genes are named by var['{symbols}'], not by names such as {example}")
        if symbols is not None:
            named = plain(var[symbols])
            forms = recognize(named.where(named != "", forms.names).tolist(), ids)
    var.index = pd.Index(forms.names, dtype=object)
    if ids is not None or forms.ids:
        ids = list(ids or [""] * len(var))
        for at, ensembl in forms.ids.items():
            ids[at] = ids[at] or ensembl
        var[_keys.GENE_IDS] = np.array(ids, dtype=object)
    notes += forms.notes
    if forms.foreign:
        kept = np.setdiff1d(np.arange(len(var)), forms.foreign)
        return replace(found, matrix=found.matrix[:, kept], var=var.iloc[kept].copy()), notes
    return replace(found, var=var), notes


def plain(values: Iterable[Any]) -> pd.Index:
    """Convert names to plain strings, empty if missing."""
    return pd.Index(["" if pd.isna(value) else str(value) for value in values], dtype=object)


def _column_of(var: pd.DataFrame, usual: tuple[str, ...], *, ensembl: bool) -> str | None:
    """Find a column of Ensembl ids or of symbols by its usual names, else of known symbols."""
    texts = [column for column in var if var[column].dtype.kind not in "biufc"]
    # Concatenated objects have gene_symbols-0, tables of R Gene.name.
    letters = {re.sub("[^a-z]", "", str(column).lower()): column for column in reversed(texts)}
    for column in (letters[name] for name in usual if name in letters):
        if name_kind(plain(var[column]).tolist())[0].startswith("ensembl") is ensembl:
            return str(column)
    known = known_gene_names()
    for column in () if ensembl else texts:
        if sum(name in known for name in plain(var[column])) > len(var) / 2:
            return str(column)
    return None
