"""What is known about the names of human genes: Ensembl ids, previous symbols, aliases."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER_VARIABLE = "SAGEFM_GENES"
"""Environment variable that names the folder with the tables of gene names."""

_HGNC = "hgnc_complete_set.txt"  # as genenames.org publishes it, public domain
_ALIASES = "hgnc_previous_and_alias.csv.gz"  # previous_or_alias, approved
_FEATURES = "10x_GRCh38_features.csv.gz"  # ensembl_id, symbol
_MOUSE = re.compile(r"(ENSMUSG\d|[A-Z0-9][a-z][a-z0-9]*\d*[a-z]*$)")


@dataclass(frozen=True)
class GeneNames:
    """Facts about gene names."""

    id_of_symbol: dict[str, str] = field(default_factory=dict)
    """Ensembl id of an approved symbol."""
    symbol_of_alias: dict[str, str] = field(default_factory=dict)
    """Approved symbol of a previous symbol or alias, only where it can mean no other gene."""


def known_gene_names() -> GeneNames:
    """Read the tables of gene names, if there are any.

    Looked for in the folder that the environment variable ``SAGEFM_GENES`` names, and in
    ``shared/data/genes`` beside a source checkout: ``hgnc_complete_set.txt`` as genenames.org
    publishes it, or the pair ``10x_GRCh38_features.csv.gz`` (columns ensembl_id, symbol) and
    ``hgnc_previous_and_alias.csv.gz`` (columns previous_or_alias, approved).

    Returns
    -------
    The facts; empty where no table is found.
    """
    checkout = Path(__file__).resolve().parents[3]
    folder = os.environ.get(FOLDER_VARIABLE) or checkout.parent / "shared" / "data" / "genes"
    return _read(Path(folder))


@cache
def _read(folder: Path) -> GeneNames:
    import pandas as pd

    id_of_symbol: dict[str, str] = {}
    meanings: dict[str, set[str]] = {}
    if (folder / _HGNC).exists():
        table = pd.read_csv(folder / _HGNC, sep="\t", dtype=str, keep_default_na=False)
        id_of_symbol = dict(zip(table["symbol"], table["ensembl_gene_id"], strict=True))
        for earlier in ("prev_symbol", "alias_symbol"):
            for symbol, names in zip(table["symbol"], table[earlier], strict=True):
                for name in filter(None, names.split("|")):
                    meanings.setdefault(name, set()).add(symbol)
    if (folder / _FEATURES).exists():
        table = pd.read_csv(folder / _FEATURES, dtype=str, keep_default_na=False)
        for symbol, ensembl in zip(table["symbol"], table["ensembl_id"], strict=True):
            id_of_symbol.setdefault(symbol, ensembl)
    if (folder / _ALIASES).exists():
        table = pd.read_csv(folder / _ALIASES, dtype=str, keep_default_na=False)
        for name, symbol in zip(table["previous_or_alias"], table["approved"], strict=True):
            meanings.setdefault(name, set()).add(symbol)
    return GeneNames({s: e for s, e in id_of_symbol.items() if e}, _sure(meanings, id_of_symbol))


def _sure(meanings: dict[str, set[str]], id_of_symbol: dict[str, str]) -> dict[str, str]:
    """Keep the aliases that mean one gene and are not the name of another gene today."""
    approved = set().union(*meanings.values())
    return {
        alias: symbol
        for alias, symbols in meanings.items()
        for symbol in symbols
        if len(symbols) == 1
        and alias not in approved
        and not (alias in id_of_symbol and symbol in id_of_symbol)  # two genes side by side
    }


def bare_id(name: str) -> str:
    """Strip the version from an Ensembl id (``ENSG00000141510.18``); leave other names alone."""
    return name.partition(".")[0] if name.startswith("ENS") else name


def looks_like_mouse(names: Sequence[str]) -> bool:
    """Whether most names are written as mouse genes are (``Xkr4``, ``Gm1992``, ``ENSMUSG…``)."""
    return sum(_MOUSE.match(name) is not None for name in names) > len(names) / 2
