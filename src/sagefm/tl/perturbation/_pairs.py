"""Pairs of genes to perturb: ligand-receptor resources, gene sets and tables of the user's own."""

import itertools
import logging
import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._text import few, numbered
from sagefm.tl.perturbation._columns import SAVE, columns_that_count, other_genes, position, text
from sagefm.tl.perturbation._entries import HUMAN_GENE, UNIPROT, by_uniprot, name_genes, subunits

PairSource = str | Path | pd.DataFrame | Sequence[tuple[str, str]]

_RESOURCES = {"liana": "consensus", "cellphonedb": "cellphonedb", "cellchat": "cellchatdb"}
"""Our names of resources, and those that liana gives them."""
_REMEDY = "name their genes, joined by _, there or in a column such as receptor_symbol"


def pairs(source: PairSource) -> pd.DataFrame:
    """Read pairs of genes from a resource, a file, a table or a list.

    A complex is written as its subunits joined by ``_``, ``+`` or ``&``, also as
    ``COMPLEX:TGFBR1_TGFBR2`` or ``(TGFBR1+TGFBR2)``. Each subunit becomes a pair of its own:
    ``TGFB1`` with ``TGFBR1_TGFBR2`` becomes TGFB1-TGFBR1 and TGFB1-TGFBR2, and every subunit of a
    ligand meets every subunit of its target. Symbols of human genes have no ``_``, but ``HLA_DRA``
    is one gene; the ending ``_PAR_Y`` of an Ensembl id is left whole.

    An entry that names no genes (``TGFbeta_receptor1``, ``P01137``) is read from another column of
    the table: the symbols of the same side (``receptor.symbol`` of CellChat, ``gene_b`` of
    CellPhoneDB), or ``interactors`` or ``interaction_name_2``, which write both sides out. Else
    UniProt ids are looked up in the tables of the package liana, if it is installed, and integrins
    (``integrin_a2b1_complex``) follow from their chains. Rows with others are left out; both is
    logged.

    Parameters
    ----------
    source
        The name of a resource: ``"liana"`` (the consensus of LIANA+ [1]_), ``"cellphonedb"`` [2]_
        or ``"cellchat"`` [3]_, all from the package liana, without the network. Or a file,
        ``.csv``, or ``.tsv`` or ``.txt`` with tabs, also ``.gz``; or a DataFrame; or (ligand,
        target) tuples.

        In a table the genes stand in the columns ligand and target, or, in this order of
        preference and in any case: ligand/receptor, from/to, tf/target, upstream/downstream,
        source_genesymbol/target_genesymbol, source/target, partner_a/partner_b (exchanged where
        only receptor_a is true). Else in the first two columns, where
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
    entries, place = raw_pairs(source)
    return _single_genes(entries, place)


def raw_pairs(source: PairSource, targets: Collection[str] = ()) -> tuple[pd.DataFrame, str]:
    """Read pairs as they are written: ligand, target, sign, complex, and what else names genes.

    A file may start with a pair: of genes, or with one of the `targets`, if these are no genes.

    Returns
    -------
    The table, and what messages call it.

    Raises
    ------
    InputError
        As :func:`pairs`, but for names of genes.
    """
    place = str(source) if isinstance(source, str | Path) else "pairs"
    if isinstance(source, pd.DataFrame):
        table = source
    elif isinstance(source, str) and source.lower() in _RESOURCES:
        table = _resource(source.lower())
    elif isinstance(source, str | Path):
        if not Path(source).exists():
            known = ", ".join(_RESOURCES)
            raise InputError(
                f"{source}: no such file, and none of the resources {known}; check the name"
            )
        table = read_table(Path(source), targets=targets)
    else:
        for number, row in enumerate(source, start=1):
            if isinstance(row, str) or len(row) != 2:
                raise InputError(f"pairs: item {number} is {row!r}; give (ligand, target) tuples")
        table = pd.DataFrame(list(source), columns=["ligand", "target"], dtype=object)
    return columns_that_count(table, place), place


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


def read_table(
    path: Path, columns: str = "ligand and target", targets: Collection[str] = ()
) -> pd.DataFrame:
    """Read a file of commas or tabs as text; `columns` says in messages which it is to have."""
    if not path.exists():  # before pandas takes it for an address on the network
        raise InputError(f"{path}: no such file; check the path")
    tabs = path.name.removesuffix(".gz").endswith((".tsv", ".txt"))
    try:
        # All as text and no header yet: the first row may be a pair.
        cells = pd.read_csv(
            path, sep="\t" if tabs else ",", header=None, dtype=str, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: has no rows; give a table of {columns}") from error
    except (ValueError, EOFError, zlib.error) as error:  # not text, not columns, a broken .gz
        why = " ".join(str(error).split())
        raise InputError(f"{path}: is not a table of text ({why}); {SAVE} {columns}") from error
    except OSError as error:
        why = error.strerror or str(error)  # a file that only calls itself .gz has no strerror
        raise InputError(f"{path}: cannot be read ({why}); check the path") from error
    first = [str(cell).strip() for cell in cells.iloc[0].fillna("")]
    a_pair = all(map(HUMAN_GENE.fullmatch, first[:2])) or first[-1] in targets
    if position(first) is None and a_pair:
        shown = ", ".join(first[:2])
        logger.info("%s: no names of columns, the first row is taken as a pair: %s", path, shown)
        return cells.iloc[:, :2]
    return cells.iloc[1:].set_axis(first, axis=1)


def _single_genes(entries: pd.DataFrame, place: str) -> pd.DataFrame:
    """Split complexes, then make one row of all that is said about a pair."""
    found: dict[tuple[str, str], tuple[set[float], dict[str, None]]] = {}
    left_out: dict[str, list[str]] = {}
    replaced: dict[str, str] = {}
    for row, (*names, sign, written, others) in enumerate(entries.to_numpy().tolist(), start=1):
        if not any(map(text, names)):  # an empty row
            continue
        sides = []
        for side, name in enumerate(map(text, names)):
            units, instead = _genes(name, others, side, f"{place}: row {row}")
            if instead:
                left_out.setdefault(instead, []).append(name)
                break
            if not any(unit.upper() in name.upper() for unit in units):
                replaced[name] = "_".join(units)
            sides.append(units)
        if len(sides) < 2:
            continue
        origins = written.split(";") if written else ["^".join("_".join(side) for side in sides)]
        for pair in itertools.product(*sides):
            signs, known = found.setdefault((pair[0], pair[1]), (set(), {}))
            signs.update([] if np.isnan(sign) else [sign])
            known.update(dict.fromkeys(origins))
    _report(left_out, replaced, len(entries), place, empty=not found)
    rows = [
        (*pair, min(signs) if len(signs) == 1 else np.nan, _complexes(pair, known))
        for pair, (signs, known) in found.items()
    ]
    table = pd.DataFrame(rows, columns=["ligand", "target", "sign", "complex"])
    return table.astype({"sign": float})


def _genes(
    name: str, others: tuple[list[str], list[str], list[str]], side: int, place: str
) -> tuple[list[str], str]:
    """Find the genes of an entry: in itself, in other columns, or of its UniProt ids."""
    units, instead = subunits(name)
    if name_genes(units):
        return units, instead
    if elsewhere := other_genes(others, side):
        return elsewhere, ""
    if instead == UNIPROT and name_genes(symbols := by_uniprot(units)):
        return symbols, ""
    if not all(units):
        raise InputError(f"{place}: the name of a gene is missing; fill it in or leave the row out")
    if not instead and not all(re.search("[A-Za-z]", unit) for unit in units):
        raise InputError(f"{place}: {name!r} is no name of a gene; {SAVE}")
    return units, instead


def _report(
    left_out: dict[str, list[str]],
    replaced: dict[str, str],
    n_rows: int,
    place: str,
    *,
    empty: bool,
) -> None:
    """Log what is left out and what is read as other names; raise an error if nothing is left."""
    what = "; ".join(
        f"{numbered(len(names), 'row')} with {instead} (such as {few(dict.fromkeys(names))})"
        for instead, names in left_out.items()
    )
    if empty:
        why = f"names no pair of genes: {what}" if what else "has no rows"
        raise InputError(f"{place}: {why}; give a table of ligand and target, by symbol")
    if what:
        logger.warning("%s: left out of %d rows: %s; %s", place, n_rows, what, _REMEDY)
    if replaced:
        shown = few([f"{name} as {genes}" for name, genes in replaced.items()])
        logger.info("%s: %s read as genes: %s", place, numbered(len(replaced), "name"), shown)


def _complexes(pair: tuple[str, str], known: dict[str, None]) -> str:
    return ";".join(known) if list(known) != ["^".join(pair)] else ""
