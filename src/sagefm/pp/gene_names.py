"""Names of human genes: Ensembl ids, previous symbols, aliases."""

import gzip
import hashlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sagefm._errors import InputError, logger

if TYPE_CHECKING:
    import pandas as pd

FOLDER_VARIABLE = "SAGEFM_GENES"
"""Environment variable that names a folder with tables to use instead of those of the package."""

_SHIPPED = Path(__file__).with_name("genes")
_SYMBOLS = "symbols.txt.gz"  # number of the Ensembl id, symbol
_EARLIER = "aliases.txt.gz"  # approved symbol, its previous symbols and aliases
_HGNC = "hgnc_complete_set.txt"  # as genenames.org publishes it
_ALIASES = "hgnc_previous_and_alias.csv.gz"  # previous_or_alias, approved
_FEATURES = "10x_GRCh38_features.csv.gz"  # ensembl_id, symbol
_MOUSE = re.compile(r"(ENSMUSG\d|[A-Z0-9][a-z][a-z0-9]*\d*[a-z]*$)")
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    rf"\d{{1,2}}[-/. ](?i:{_MONTH})(?:[-/. ]\d{{2,4}})?|"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*[-/. ]\d{1,4}|"
    r"(?:0?[39]|1[02])[-/](?:0?[1-9]|1\d)|\d{1,2}[-/]\d{1,2}[-/]\d{2,4}|"
    r"\d{4}[-/]\d{2}[-/]\d{2}(?:[ T][\d:.]+)?"
)


@dataclass(frozen=True)
class GeneNames:
    """Tables of gene names."""

    symbol_of_id: dict[str, str] = field(default_factory=dict)
    """Symbol of an Ensembl id; a few symbols have two ids."""
    symbol_of_alias: dict[str, str] = field(default_factory=dict)
    """Approved symbol of a previous symbol or alias, if unambiguous."""
    ambiguous: frozenset[str] = frozenset()
    """Previous symbols and aliases that mean several genes, or that are symbols themselves."""
    version: str = field(default="none", compare=False)
    """Sources of the tables, and the start of the sha256 of their content."""

    @cached_property
    def id_of_symbol(self) -> dict[str, str]:
        """First Ensembl id of a symbol."""
        return {symbol: ensembl for ensembl, symbol in reversed(self.symbol_of_id.items())}

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Every symbol in use, today or in the reference of 10x."""
        return frozenset(self.symbol_of_id.values()) | frozenset(self.symbol_of_alias.values())

    @cached_property
    def by_letters(self) -> dict[str, str]:
        """Symbol with hyphens or dots by its letters, joined by hyphens; if there is only one."""
        return _only_ones((re.sub("[._]", "-", s), s) for s in self.symbols if "-" in s or "." in s)

    @cached_property
    def by_capitals(self) -> dict[str, str]:
        """Symbol, or else previous symbol or alias, in capitals; if there is only one."""
        aliases = _only_ones((name.upper(), name) for name in self.symbol_of_alias)
        return aliases | _only_ones((symbol.upper(), symbol) for symbol in self.symbols)

    def __contains__(self, name: str) -> bool:
        """Check whether a name is a symbol, a previous symbol or an alias."""
        return name in self.symbols or name in self.symbol_of_alias or name in self.ambiguous

    def symbol(self, name: str) -> str | None:
        """Get the symbol that a name means, None if it means none or several genes."""
        return name if name in self.symbols else self.symbol_of_alias.get(name)


def known_gene_names() -> GeneNames:
    """Read the tables of gene names, once.

    Those of the package, or those in the folder in the environment variable ``SAGEFM_GENES``:
    ``hgnc_complete_set.txt`` as genenames.org publishes it, or the pair
    ``10x_GRCh38_features.csv.gz`` (columns ensembl_id, symbol) and
    ``hgnc_previous_and_alias.csv.gz`` (columns previous_or_alias, approved).

    Raises
    ------
    InputError
        The folder does not exist or lacks the tables, or a table is damaged.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    return _of_folder(folder) if folder else _of_package()


@cache
def _of_package() -> GeneNames:
    try:
        symbols, earlier = (_lines(_SHIPPED / name) for name in (_SYMBOLS, _EARLIER))
        symbol_of_id = {
            f"ENSG{number:0>11}": symbol
            for number, symbol in (line.split("\t") for line in symbols[1:])
        }
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{_SHIPPED}: the tables of gene names are damaged ({error}); install sagefm again"
        ) from error
    meanings: dict[str, set[str]] = {}
    for symbol, *names in (line.split("\t") for line in earlier[1:]):
        for name in names:
            meanings.setdefault(name, set()).add(symbol)
    sources = f"{symbols[0].strip('# ')} + {earlier[0].strip('# ')}"
    files = [_SHIPPED / _SYMBOLS, _SHIPPED / _EARLIER]
    return _names(symbol_of_id, meanings, f"{sources}, {_checksum(files)}")


def _lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def _checksum(files: Sequence[Path]) -> str:
    content = b"".join(path.read_bytes() for path in files)
    return f"sha256 {hashlib.sha256(content).hexdigest()[:12]}"


@cache
def _of_folder(name: str) -> GeneNames:
    folder = Path(name)
    files = [path for path in (folder / n for n in (_HGNC, _FEATURES, _ALIASES)) if path.is_file()]
    if not {_HGNC} & {path.name for path in files} and len(files) < 2:
        state = "lacks the tables" if folder.is_dir() else "is no folder"
        raise InputError(
            f"{FOLDER_VARIABLE}={name}: {state}; put {_HGNC} of genenames.org into a folder and "
            f"name it, or unset {FOLDER_VARIABLE} to use the tables of sagefm"
        )
    symbol_of_id: dict[str, str] = {}
    meanings: dict[str, set[str]] = {}
    for path in files:
        try:
            for ensembl, symbol, earlier in _rows(path):
                if ensembl:
                    symbol_of_id.setdefault(ensembl, symbol)
                for other in filter(None, earlier):
                    meanings.setdefault(other, set()).add(symbol)
        except (OSError, EOFError, ValueError, LookupError, zlib.error) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{path}: is damaged or no such table ({why}); download it again, or unset "
                f"{FOLDER_VARIABLE}"
            ) from error
    names = _names(symbol_of_id, meanings, f"{folder.resolve().name}, {_checksum(files)}")
    logger.warning("gene names are those of %s=%s (%s)", FOLDER_VARIABLE, name, names.version)
    return names


def _rows(path: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield Ensembl id, symbol and earlier names of each row of a table."""
    import pandas as pd

    tab = path.name == _HGNC
    table = pd.read_csv(path, sep="\t" if tab else ",", dtype=str, keep_default_na=False)
    if table.empty:
        raise ValueError("it has no rows")
    if path.name == _FEATURES:
        yield from ((ensembl, s, ()) for ensembl, s in _columns(table, "ensembl_id", "symbol"))
    elif path.name == _ALIASES:
        yield from (("", s, (n,)) for n, s in _columns(table, "previous_or_alias", "approved"))
    else:
        columns = _columns(table, "ensembl_gene_id", "symbol", "prev_symbol", "alias_symbol")
        yield from ((e, s, (*p.split("|"), *a.split("|"))) for e, s, p, a in columns)


def _columns(table: "pd.DataFrame", *names: str) -> Iterator[tuple[str, ...]]:
    if missing := [name for name in names if name not in table]:
        raise LookupError(f"it has no column {missing[0]}")
    return zip(*(table[name] for name in names), strict=True)


def _names(symbol_of_id: dict[str, str], meanings: dict[str, set[str]], version: str) -> GeneNames:
    """Keep the aliases of one gene only that are not the symbol of another gene."""
    symbols_in_use = set(symbol_of_id.values())
    approved = set().union(*meanings.values())
    meanings.pop("", None)
    unambiguous = {
        alias: symbol
        for alias, symbols in meanings.items()
        for symbol in symbols
        if len(symbols) == 1
        and alias not in approved
        and not {alias, symbol} <= symbols_in_use  # two genes that exist today
        and not is_date(alias)  # HGNC lists what spreadsheets make of SEPT1 and MARCH1
    }
    return GeneNames(symbol_of_id, unambiguous, frozenset(meanings.keys() - unambiguous), version)


def _only_ones(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Make a dictionary of the pairs whose key occurs once."""
    listed = list(pairs)
    times = Counter(key for key, _ in listed)
    return {key: value for key, value in listed if times[key] == 1}


def is_date(name: str) -> bool:
    """Check for a date, as spreadsheets make of MARCH1, MARC1, SEPT2 and DEC1."""
    return not name.isalnum() and _DATE.fullmatch(name) is not None  # dates have separators


def bare_id(name: str) -> str:
    """Strip the version from an Ensembl id (``ENSG00000141510.18``), and keep other names."""
    return name.partition(".")[0] if name.startswith("ENS") else name


def looks_like_mouse(names: Sequence[str]) -> bool:
    """Check whether most names look like mouse genes (``Xkr4``, ``Gm1992``, ``ENSMUSG…``)."""
    return sum(_MOUSE.match(name) is not None for name in names) > len(names) / 2
