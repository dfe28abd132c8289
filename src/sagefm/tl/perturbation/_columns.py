"""Columns of tables of pairs: which hold the genes, the signs and other names of the genes."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError, logger
from sagefm.tl.perturbation._entries import name_genes, subunits

# The first that a table has both of; `source` comes late, for NicheNet's is a database.
_COLUMNS = (
    ("ligand", "target"),
    ("ligand", "receptor"),
    ("from", "to"),
    ("tf", "target"),
    ("upstream", "downstream"),
    ("source_genesymbol", "target_genesymbol"),
    ("source", "target"),
    ("partner_a", "partner_b"),
)
# Else these in any combination, also as ligand.symbol, receptor_gene_symbol, ligand_complex.
_UPSTREAM = ("ligand", "from", "tf", "regulator", "upstream", "source")
_DOWNSTREAM = ("receptor", "to", "target", "downstream")
_WRITTEN_OUT = ("interaction_name_2", "interactors")
"""Columns of CellChat and CellPhoneDB with both sides: ``TGFB1 - (TGFBR1+TGFBR2)``."""
SAVE = "save it as .csv (commas) or .tsv (tabs) with the columns"


def position(names: Sequence[str]) -> tuple[int, int] | None:
    """Find the columns that hold the genes, by their names."""
    lower = [name.lower() for name in names]
    # Beside ligand and receptor, source and target are the types of cells that talk (CellChat).
    cells = {"source", "target", "ligand", "receptor"} <= set(lower)
    for ligand, target in _COLUMNS[1:] if cells else _COLUMNS:
        if ligand in lower and target in lower:
            return lower.index(ligand), lower.index(target)
    words = list(map(_word, lower))
    # Ligand.ApprovedSymbol is preferred to Ligand.Name.
    symbols = [word if "symbol" in name else "" for word, name in zip(words, lower, strict=True)]
    for some in (symbols, words):
        for ligand, target in itertools.product(_UPSTREAM, _DOWNSTREAM):
            if some.count(ligand) == 1 and some.count(target) == 1:
                return some.index(ligand), some.index(target)
    return None


def columns_that_count(table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Find the columns that count, whatever they are called.

    Returns
    -------
    A row per row of the table: ligand, target, sign, complex, and others: for each side the texts
    of other columns that may name its genes.
    """
    names = [str(name).strip() for name in table.columns]
    if len(names) < 2:
        raise InputError(f"{place}: has fewer than two columns; {SAVE} ligand and target")
    sides = position(names)
    if sides is None and len(names) > 2:
        raise InputError(
            f"{place}: cannot tell which of the columns {', '.join(names[:6])} hold the genes; "
            "call them ligand and target"
        )
    if sides is None and not all(map(str.isdigit, names)):
        logger.info("%s: columns %s are taken as ligand, target", place, ", ".join(names))
    if table.empty:
        raise InputError(f"{place}: has no rows; give a table of ligand and target")
    lower = [name.lower() for name in names]
    ligand, target = sides or (0, 1)
    found = pd.DataFrame({"sign": np.nan, "complex": ""}, index=range(len(table)))
    found.insert(0, "ligand", table.iloc[:, ligand].to_numpy(dtype=object))
    found.insert(1, "target", table.iloc[:, target].to_numpy(dtype=object))
    for name in ("sign", "mor"):
        if name in lower:
            found["sign"] = _signs(table.iloc[:, lower.index(name)], place)
            break
    if "complex" in lower:
        entries = table.iloc[:, lower.index("complex")].astype(object)
        entries = entries.where(entries.notna(), "").astype(str)
        # Other people's columns of that name say other things.
        if all("^" in entry for entry in entries if entry):
            found["complex"] = entries.to_numpy(dtype=object)
    found["others"] = pd.Series(_others(table, lower, (ligand, target)), found.index, dtype=object)
    if lower[ligand] == "partner_a":
        _turn(found, table, lower)
    return found


def text(name: object) -> str:
    """Convert a cell to text, a missing one to an empty text."""
    missing = name is None or name is pd.NA or name != name
    return "" if missing else str(name).strip()


def other_genes(others: tuple[list[str], list[str], list[str]], side: int) -> list[str]:
    """Find the genes of a side in other columns of its row, if there are such."""
    written_out = [halves[side] for halves in map(_halves, others[2]) if halves]
    for entry in (*others[side], *written_out):
        units, instead = subunits(entry)
        if not instead and name_genes(units):
            return units
    return []


def _word(name: str) -> str:
    return re.sub("[^a-z]|genes?|symbol|name|complex|approved|hgnc|partner", "", name)


def _others(
    table: pd.DataFrame, lower: list[str], sides: tuple[int, int]
) -> list[tuple[list[str], ...]]:
    """Collect for each row what other columns say of the ligand, of the target and of both."""
    words = [_word(name) if re.search("gene|symbol", name) else "" for name in lower]
    columns = [
        [at for at, word in enumerate(words) if word and word == _word(lower[side])]
        for side in sides
    ]
    columns.append([at for at, name in enumerate(lower) if name in _WRITTEN_OUT])
    cells = [[list(map(text, table.iloc[:, at])) for at in some] for some in columns]
    return [
        tuple([column[row] for column in some if column[row]] for some in cells)
        for row in range(len(table))
    ]


def _halves(entry: str) -> tuple[str, str] | None:
    """Divide ``HLA-A-CD8A`` where both sides name genes, if there is only one way."""
    ways = []
    for hyphen in re.finditer("-", entry):
        halves = entry[: hyphen.start()].strip(), entry[hyphen.end() :].strip()
        found = [subunits(half) for half in halves]
        if all(not instead and name_genes(units) for units, instead in found):
            ways.append(halves)
    return ways[0] if len(ways) == 1 else None


def _turn(found: pd.DataFrame, table: pd.DataFrame, lower: list[str]) -> None:
    """Exchange the sides where CellPhoneDB says that only the first partner is a receptor."""
    if not {"receptor_a", "receptor_b"} <= set(lower):
        return
    first, second = (
        table.iloc[:, lower.index(name)].map(text).str.lower().eq("true").to_numpy()
        for name in ("receptor_a", "receptor_b")
    )
    turned = first & ~second
    found.loc[turned, ["ligand", "target"]] = found.loc[turned, ["target", "ligand"]].to_numpy()
    found["others"] = [
        (b, a, []) if turn else (a, b, both)
        for turn, (a, b, both) in zip(turned, found["others"], strict=True)
    ]


def _signs(column: "pd.Series[str]", place: str) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    for row in np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy()):
        raise InputError(
            f"{place}: row {row + 1}: the sign is {column.iloc[row]!r}; give 1, -1 or nothing"
        )
    return np.where(numbers == 0, np.nan, np.sign(numbers))
