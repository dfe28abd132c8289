"""Names of human genes: Ensembl ids, previous symbols, aliases."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

FOLDER_VARIABLE = "SAGEFM_GENES"
"""Environment variable that names the folder with the tables of gene names."""

_HGNC = "hgnc_complete_set.txt"  # as genenames.org publishes it, public domain
_ALIASES = "hgnc_previous_and_alias.csv.gz"  # previous_or_alias, approved
_FEATURES = "10x_GRCh38_features.csv.gz"  # ensembl_id, symbol
_MOUSE = re.compile(r"(ENSMUSG\d|[A-Z0-9][a-z][a-z0-9]*\d*[a-z]*$)")


@dataclass(frozen=True)
class GeneNames:
    """Tables of gene names."""

    symbol_of_id: dict[str, str] = field(default_factory=dict)
    """Symbol of an Ensembl id; a few symbols have two ids."""
    symbol_of_alias: dict[str, str] = field(default_factory=dict)
    """Approved symbol of a previous symbol or alias, if unambiguous."""

    @cached_property
    def id_of_symbol(self) -> dict[str, str]:
        """First Ensembl id of a symbol."""
        return {symbol: ensembl for ensembl, symbol in reversed(self.symbol_of_id.items())}


def known_gene_names() -> GeneNames:
    """Read the tables of gene names, if available.

    They are in the folder in the environment variable ``SAGEFM_GENES``, or in ``shared/data/genes``
    next to a source checkout: ``hgnc_complete_set.txt`` as genenames.org
    publishes it, or the pair ``10x_GRCh38_features.csv.gz`` (columns ensembl_id, symbol) and
    ``hgnc_previous_and_alias.csv.gz`` (columns previous_or_alias, approved).

    Returns
    -------
    The names; empty if there is no table.
    """
    checkout = Path(__file__).resolve().parents[3]
    folder = os.environ.get(FOLDER_VARIABLE) or checkout.parent / "shared" / "data" / "genes"
    return _read(Path(folder))


@cache
def _read(folder: Path) -> GeneNames:
    import pandas as pd

    symbol_of_id: dict[str, str] = {}
    meanings: dict[str, set[str]] = {}
    if (folder / _HGNC).exists():
        table = pd.read_csv(folder / _HGNC, sep="\t", dtype=str, keep_default_na=False)
        symbol_of_id = dict(zip(table["ensembl_gene_id"], table["symbol"], strict=True))
        for earlier in ("prev_symbol", "alias_symbol"):
            for symbol, names in zip(table["symbol"], table[earlier], strict=True):
                for name in filter(None, names.split("|")):
                    meanings.setdefault(name, set()).add(symbol)
    if (folder / _FEATURES).exists():
        table = pd.read_csv(folder / _FEATURES, dtype=str, keep_default_na=False)
        for ensembl, symbol in zip(table["ensembl_id"], table["symbol"], strict=True):
            symbol_of_id.setdefault(ensembl, symbol)
    if (folder / _ALIASES).exists():
        table = pd.read_csv(folder / _ALIASES, dtype=str, keep_default_na=False)
        for name, symbol in zip(table["previous_or_alias"], table["approved"], strict=True):
            meanings.setdefault(name, set()).add(symbol)
    symbol_of_id.pop("", None)
    return GeneNames(symbol_of_id, _unambiguous(meanings, set(symbol_of_id.values())))


def _unambiguous(meanings: dict[str, set[str]], symbols_in_use: set[str]) -> dict[str, str]:
    """Keep the aliases of one gene only that are not the symbol of another gene."""
    approved = set().union(*meanings.values())
    return {
        alias: symbol
        for alias, symbols in meanings.items()
        for symbol in symbols
        if len(symbols) == 1
        and alias not in approved
        and not {alias, symbol} <= symbols_in_use  # two genes that exist today
    }


def bare_id(name: str) -> str:
    """Strip the version from an Ensembl id (``ENSG00000141510.18``), and keep other names."""
    return name.partition(".")[0] if name.startswith("ENS") else name


def looks_like_mouse(names: Sequence[str]) -> bool:
    """Check whether most names look like mouse genes (``Xkr4``, ``Gm1992``, ``ENSMUSG…``)."""
    return sum(_MOUSE.match(name) is not None for name in names) > len(names) / 2
