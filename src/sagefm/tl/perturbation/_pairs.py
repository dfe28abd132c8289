"""Pairs of genes to perturb: ligand-receptor resources, gene sets and tables of the user's own."""

import itertools
import logging
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._text import few, numbered
from sagefm.tl.perturbation._entries import HUMAN_GENE, subunits

PairSource = str | Path | pd.DataFrame | Sequence[tuple[str, str]]

_RESOURCES = {"liana": "consensus", "cellphonedb": "cellphonedb", "cellchat": "cellchatdb"}
"""Our names of resources, and those that liana gives them."""
# The first that a table has both of; `source` comes last, for NicheNet's is a database.
_COLUMNS = (
    ("ligand", "target"),
    ("ligand", "receptor"),
    ("from", "to"),
    ("tf", "target"),
    ("upstream", "downstream"),
    ("source_genesymbol", "target_genesymbol"),
    ("source", "target"),
)
# Else these in any combination, also as ligand.symbol, receptor_gene_symbol, ligand_complex.
_UPSTREAM = ("ligand", "from", "tf", "regulator", "upstream", "source")
_DOWNSTREAM = ("receptor", "to", "target", "downstream")
_SAVE = "save it as .csv (commas) or .tsv (tabs) with the columns ligand and target"


def pairs(source: PairSource) -> pd.DataFrame:
    """Read pairs of genes from a resource, a file, a table or a list.

    A complex is written as its subunits joined by ``_``, ``+`` or ``&``, also as
    ``COMPLEX:TGFBR1_TGFBR2`` or ``(TGFBR1+TGFBR2)``. Each subunit becomes a pair of its own:
    ``TGFB1`` with ``TGFBR1_TGFBR2`` becomes TGFB1-TGFBR1 and TGFB1-TGFBR2, and every subunit of a
    ligand meets every subunit of its target. Symbols of human genes have no ``_``; the ending
    ``_PAR_Y`` of an Ensembl id is left whole. Rows that name a complex or a molecule without its
    genes (``integrin_a2b1_complex``), or UniProt ids, are left out; this is logged.

    Parameters
    ----------
    source
        The name of a resource: ``"liana"`` (the consensus of LIANA+ [1]_), ``"cellphonedb"`` [2]_
        or ``"cellchat"`` [3]_, all from the package liana, without the network. Or a file,
        ``.csv`` or ``.tsv``, also ``.gz``; or a DataFrame; or (ligand, target) tuples.

        In a table the genes stand in the columns ligand and target, or, in this order of
        preference and in any case: ligand/receptor, from/to, tf/target, upstream/downstream,
        source_genesymbol/target_genesymbol, source/target. Else in the first two columns, where
        there are no more than two or a file starts with a pair of genes and not with names of
        columns; what was assumed is logged. Other columns that count: sign, or else mor (a number:
        above zero activates, below inhibits), and complex, as it is returned here.

    Returns
    -------
    One row per pair of single genes, in the order of the source: ligand, target, sign (1, -1, or
    NaN where the source says nothing, 0, or both), and complex: empty for a pair that stands in
    the source only as it is, otherwise every entry that it comes from, ``LIGAND^TARGET`` as it was
    written, separated by ``;``. ``complex.str.split(";")`` and ``explode`` lead back to complexes.

    Raises
    ------
    InputError
        No such resource or file, liana is not installed, not a table, no two columns of genes, no
        rows or none that names genes, a name that is missing or a number, or a sign that is no
        number.

    References
    ----------
    .. [1] Dimitrov et al., Nature Cell Biology 2024.
    .. [2] Efremova et al., Nature Protocols 2020.
    .. [3] Jin et al., Nature Communications 2021.
    """
    place = str(source) if isinstance(source, str | Path) else "pairs"
    if isinstance(source, pd.DataFrame):
        table = source
    elif isinstance(source, str) and source.lower() in _RESOURCES:
        table = _resource(source.lower())
    elif isinstance(source, str | Path):
        table = _read_table(Path(source))
    else:
        for number, row in enumerate(source, start=1):
            if isinstance(row, str) or len(row) != 2:
                raise InputError(f"pairs: item {number} is {row!r}; give (ligand, target) tuples")
        table = pd.DataFrame(list(source), columns=["ligand", "target"], dtype=object)
    return _single_genes(_genes_and_sign(table, place), place)


def gene_sets(path: str | Path) -> dict[str, list[str]]:
    """Read gene sets from a GMT file, the format of MSigDB.

    Parameters
    ----------
    path
        One set per line, tab-separated: name, description, genes.

    Returns
    -------
    The genes of each set, each gene once, in the order of the file.

    Raises
    ------
    InputError
        The file is missing, holds no set or a line that is none, or two sets of one name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a GMT file; unpack it if it is compressed") from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, *fields = (*(field.strip() for field in line.split("\t")), "")
        genes = list(dict.fromkeys(filter(None, fields)))  # lines may end with empty fields
        if not name or not genes:
            raise InputError(
                f"{path}: line {number} is no gene set; a GMT file has a name, a description and "
                "genes in every line, separated by tabs"
            )
        if name in sets:
            raise InputError(f"{path}: line {number}: a second set {name!r}; rename one of them")
        sets[name] = genes
    if not sets:
        raise InputError(f"{path}: holds no gene sets; give a GMT file with at least one line")
    return sets


def set_pairs(upstream: str | Sequence[str], genes: str | Sequence[str]) -> pd.DataFrame:
    """Pair every upstream gene with every gene of a set.

    Parameters
    ----------
    upstream
        One gene or several, such as a ligand.
    genes
        What may respond, such as one of :func:`gene_sets`.

    Returns
    -------
    As :func:`pairs` returns them, all of the first upstream gene first; a gene that is in both is
    paired with itself too. No sign: a set does not say which way its genes go.

    Raises
    ------
    InputError
        One of the two is empty, or holds a name that is missing or no gene.
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (upstream, genes)]
    for name, side in zip(("upstream", "genes"), sides, strict=True):
        if not side:
            raise InputError(f"{name} is empty; give at least one gene")
    return pairs([(ligand, target) for ligand in sides[0] for target in sides[1]])


def _resource(name: str) -> pd.DataFrame:
    with _quiet_import():
        resource = require("liana.resource", "perturb", f"pairs {name!r}")
    return pd.DataFrame(resource.select_resource(_RESOURCES[name]))


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep what liana does when it is imported from what the user has set up."""
    root, holder = logging.getLogger(), logging.NullHandler()
    # It calls logging.basicConfig, which would print what every library logs from then on, but
    # which leaves a root logger alone that has a handler.
    root.addHandler(holder)
    try:
        with warnings.catch_warnings():
            # It loads plotting libraries for methods that we do not call: what those warn about
            # is nothing that a user of a list of genes could act upon.
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(holder)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.exists():  # before pandas takes it for an address on the network
        known = ", ".join(_RESOURCES)
        raise InputError(f"{path}: no such file, and none of the resources {known}; check the name")
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    try:
        # All as text and no header yet: the first row may be a pair.
        cells = pd.read_csv(
            path, sep="\t" if tabs else ",", header=None, dtype=str, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: has no rows; give a table of ligand and target") from error
    except (ValueError, EOFError, zlib.error) as error:  # not text, not columns, a broken .gz
        why = " ".join(str(error).split())
        raise InputError(f"{path}: is not a table of text ({why}); {_SAVE}") from error
    except OSError as error:
        why = error.strerror or str(error)  # a file that only calls itself .gz has no strerror
        raise InputError(f"{path}: cannot be read ({why}); check the path") from error
    first = [str(cell).strip() for cell in cells.iloc[0].fillna("")]
    if _position(first) is None and all(map(HUMAN_GENE.fullmatch, first[:2])):
        shown = ", ".join(first[:2])
        logger.info("%s: no names of columns, the first row is taken as a pair: %s", path, shown)
        return cells.iloc[:, :2]
    return cells.iloc[1:].set_axis(first, axis=1)


def _position(names: Sequence[str]) -> tuple[int, int] | None:
    """Say which columns hold the genes, by their names."""
    lower = [name.lower() for name in names]
    # Beside ligand and receptor, source and target are the types of cells that talk (CellChat).
    cells = {"source", "target", "ligand", "receptor"} <= set(lower)
    for ligand, target in _COLUMNS[1:] if cells else _COLUMNS:
        if ligand in lower and target in lower:
            return lower.index(ligand), lower.index(target)
    letters = [re.sub("[^a-z]|gene|symbol|name|complex", "", name) for name in lower]
    for ligand, target in itertools.product(_UPSTREAM, _DOWNSTREAM):
        if letters.count(ligand) == 1 and letters.count(target) == 1:
            return letters.index(ligand), letters.index(target)
    return None


def _genes_and_sign(table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Find the columns that count, whatever they are called."""
    names = [str(name).strip() for name in table.columns]
    if len(names) < 2:
        raise InputError(f"{place}: has fewer than two columns; {_SAVE}")
    position = _position(names)
    if position is None and len(names) > 2:
        raise InputError(
            f"{place}: cannot tell which of the columns {', '.join(names[:6])} hold the genes; "
            "call them ligand and target"
        )
    if position is None and not all(map(str.isdigit, names)):
        logger.info("%s: columns %s are taken as ligand, target", place, ", ".join(names))
    if table.empty:
        raise InputError(f"{place}: has no rows; give a table of ligand and target")
    lower = [name.lower() for name in names]
    ligand, target = position or (0, 1)
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
    return found


def _signs(column: "pd.Series[str]", place: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    for row in np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy()):
        raise InputError(
            f"{place}: row {row + 1}: the sign is {column.iloc[row]!r}; give 1, -1 or nothing"
        )
    return np.where(numbers == 0, np.nan, np.sign(numbers))


def _single_genes(entries: pd.DataFrame, place: str) -> pd.DataFrame:
    """Split complexes, then make one row of all that is said about a pair."""
    found: dict[tuple[str, str], tuple[set[float], dict[str, None]]] = {}
    others: dict[str, list[str]] = {}
    for row, (ligand, target, sign, written) in enumerate(entries.to_numpy().tolist(), start=1):
        if not _text(ligand) and not _text(target):  # an empty row
            continue
        sides = []
        for name in (ligand, target):
            units, instead = _subunits(name, f"{place}: row {row}")
            if instead:
                others.setdefault(instead, []).append(_text(name))
                break
            sides.append(units)
        if len(sides) < 2:
            continue
        origins = written.split(";") if written else ["^".join("_".join(side) for side in sides)]
        for pair in itertools.product(*sides):
            signs, known = found.setdefault((pair[0], pair[1]), (set(), {}))
            signs.update([] if np.isnan(sign) else [sign])
            known.update(dict.fromkeys(origins))
    rows = [
        (*pair, min(signs) if len(signs) == 1 else np.nan, _complexes(pair, known))
        for pair, (signs, known) in found.items()
    ]
    left_out = "; ".join(
        f"{numbered(len(names), 'row')} with {what} (such as {few(names, 1)})"
        for what, names in others.items()
    )
    if not rows:
        why = f"names no pair of genes: {left_out}" if left_out else "has no rows"
        raise InputError(f"{place}: {why}; give a table of ligand and target, by symbol")
    if left_out:
        logger.warning("%s: left out of %d rows: %s", place, len(entries), left_out)
    table = pd.DataFrame(rows, columns=["ligand", "target", "sign", "complex"])
    return table.astype({"sign": float})


def _text(name: object) -> str:
    missing = name is None or name is pd.NA or name != name
    return "" if missing else str(name).strip()


def _subunits(name: object, place: str) -> tuple[list[str], str]:
    units, instead = subunits(_text(name))
    if not all(units):
        raise InputError(f"{place}: the name of a gene is missing; fill it in or leave the row out")
    for unit in units:
        if not re.search("[A-Za-z]", unit):
            raise InputError(f"{place}: {unit!r} is no name of a gene; {_SAVE}")
    return units, instead


def _complexes(pair: tuple[str, str], known: dict[str, None]) -> str:
    return ";".join(known) if list(known) != ["^".join(pair)] else ""
