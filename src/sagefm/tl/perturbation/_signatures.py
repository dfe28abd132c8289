"""Signatures: names with the genes that respond, each with a weight."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm.tl.perturbation._columns import text
from sagefm.tl.perturbation._entries import subunits
from sagefm.tl.perturbation._pairs import PairSource, gene_sets, raw_pairs, read_table

SignatureSource: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Any]

_NEEDED = "source (the signature), target (the gene) and, if genes count differently, weight"
_WEIGHTS = ("weight", "mor")
"""Names of the column; the second is what decoupler once called it."""


def signatures(source: SignatureSource) -> pd.DataFrame:
    """Read signatures: weighted or unweighted sets of genes.

    Parameters
    ----------
    source
        A GMT file; a file ``.csv`` or ``.tsv``, also ``.gz``, or a DataFrame with the columns
        source (the signature), target (the gene) and, if genes count differently, weight, such as
        ``decoupler.op.progeny()`` returns; or a mapping from names to genes, or to genes with their
        weights: ``{"TGFB": {"SERPINE1": 2.1, "ID1": -0.8}}``.

    Returns
    -------
    A row per signature and gene, each once, in the order of the source: source, target, weight (1
    where none is given). Rows whose weight is missing, infinite or 0 are left out, and a gene that
    a signature names again; this is logged, but for weights of 0.

    Raises
    ------
    InputError
        No such file, a column is missing, a weight is no number, a name is missing, or nothing is
        left.
    """
    place = str(source) if isinstance(source, str | Path) else "signatures"
    if isinstance(source, str | Path):
        path = Path(source)
        tabular = path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
        table = read_table(path, _NEEDED) if tabular else _of_mapping(gene_sets(path))
    elif isinstance(source, pd.DataFrame):
        table = source
    elif isinstance(source, Mapping):
        table = _of_mapping(source)
    else:
        raise InputError(
            f"signatures: is a {type(source).__name__}; give a file, a table, or name → genes"
        )
    return _checked(table, place)


def _of_mapping(sets: Mapping[str, Any]) -> pd.DataFrame:
    rows: list[tuple[object, object, object]] = []
    for name, genes in sets.items():
        if isinstance(genes, Mapping | pd.Series):
            rows += [(name, gene, weight) for gene, weight in genes.items()]
        elif isinstance(genes, Iterable) and not isinstance(genes, str | bytes | pd.DataFrame):
            rows += [(name, gene, 1.0) for gene in genes]
        else:
            raise InputError(
                f"signatures: {name!r} is {genes!r}; give a list of genes, or gene → weight"
            )
    return pd.DataFrame(rows, columns=["source", "target", "weight"])


def _checked(table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Keep the columns that count; leave out what says nothing."""
    names = [str(name).strip().lower() for name in table.columns]
    for name in ("source", "target"):
        if names.count(name) != 1:
            raise InputError(f"{place}: has no column {name}; the columns are to be {_NEEDED}")
    found = pd.DataFrame(
        {
            name: [text(cell) for cell in table.iloc[:, names.index(name)]]
            for name in ("source", "target")
        },
        dtype=object,
    )
    given = [name for name in _WEIGHTS if name in names]
    found["weight"] = _numbers(table.iloc[:, names.index(given[0])], place) if given else 1.0
    found = found[(found[["source", "target"]] != "").any(axis=1)]  # without empty rows
    nameless = (found[["source", "target"]] == "").any(axis=1).to_numpy()
    if nameless.any():
        row = int(found.index[nameless][0]) + 1
        raise InputError(f"{place}: row {row}: a name is missing; fill it in or leave the row out")
    finite = np.isfinite(found["weight"])
    again = found[finite].duplicated(["source", "target"])
    for number, what in (
        (int((~finite).sum()), "without a finite weight"),
        (int(again.sum()), "with a gene that its signature names before"),
    ):
        if number:
            left_out = numbered(number, "row")
            logger.warning("%s: %s %s left out", place, left_out + " " + what,
                           "is" if number == 1 else "are")  # fmt: skip
    kept: pd.DataFrame = found[finite][~again]
    kept = kept[kept["weight"] != 0].reset_index(drop=True)
    if kept.empty:
        raise InputError(f"{place}: holds no signature; give {_NEEDED}")
    return kept


def _numbers(column: "pd.Series[Any]", place: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    for row in np.flatnonzero(np.isnan(numbers)):
        # "inf" and "NA" are what programs write where there is no fold change.
        if text(column.iloc[row]).lower() not in ("", "na", "nan", "null", "none"):
            raise InputError(
                f"{place}: row {row + 1}: the weight is {column.iloc[row]!r}; give a number"
            )
    return numbers


def signature_pairs(source: PairSource, names: Sequence[str]) -> pd.DataFrame:
    """Read pairs of a ligand and a signature; complexes of ligands are split.

    Parameters
    ----------
    source
        As for :func:`sagefm.tl.pairs`, but for the targets, which are names of signatures.
    names
        The names that there are.

    Returns
    -------
    Each pair once, in the order of the source: ligand, target.

    Raises
    ------
    InputError
        No pair is left, or as :func:`sagefm.tl.pairs`.
    """
    entries, place = raw_pairs(source, names)
    rows = [(text(ligand), text(target))
            for ligand, target in entries[["ligand", "target"]].to_numpy()]  # fmt: skip
    rows = [row for row in rows if any(row)]
    unknown = [target for _, target in rows if target not in set(names)]
    found: list[tuple[str, str]] = []
    no_genes: list[str] = []
    for ligand, target in rows:
        units, instead = subunits(ligand)
        if instead or not all(units):
            no_genes.append(ligand)
        elif target not in unknown:
            found += [(unit, target) for unit in units]
    reasons = []
    if unknown:
        reasons.append(
            f"{len(unknown)} whose target is no signature ({few(dict.fromkeys(unknown))}; there "
            f"{'is' if len(names) == 1 else 'are'} {few(names)})"
        )
    if no_genes:
        reasons.append(f"{len(no_genes)} whose ligand is no gene ({few(dict.fromkeys(no_genes))})")
    if not found:
        raise InputError(
            f"{place}: none is a ligand with one of the signatures; left out: "
            f"{'; '.join(reasons) or 'nothing given'}"
        )
    if reasons:
        logger.warning("%s: left out of %d rows: %s", place, len(rows), "; ".join(reasons))
    return pd.DataFrame(list(dict.fromkeys(found)), columns=["ligand", "target"])
