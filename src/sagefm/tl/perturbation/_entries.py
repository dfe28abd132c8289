"""Entries of tables of ligands and receptors: single genes, complexes of genes, other names."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from sagefm.pp.gene_forms import kind_of
from sagefm.pp.gene_names import known_gene_names

_PREFIX = re.compile(r"(?:complex|simple|protein|gene|uniprot(?:kb)?)\s*:\s*", re.IGNORECASE)
# Ensembl ends the ids of genes on both X and Y with _PAR_Y: those underscores join no subunits.
_JOINT = re.compile(r"\s*(?:(?<!_PAR)_(?!PAR_Y)|[+&])\s*")
_LOOSE = re.compile(r"[\s:;,|/]+")
HUMAN_GENE = re.compile(r"[A-Z][A-Z0-9._-]*|C[0-9XY]+orf[0-9]+")
_MOUSE_GENE = re.compile(r"[A-Z][a-z0-9-]+")
_NO_GENES = {"complex", "receptor", "ligand", "enzyme"}
_ENTRY_NAME = re.compile(r"[A-Z0-9]{1,6}_(?:HUMAN|MOUSE|RAT)")
# integrin_a2b1_complex, integrin_aVb3: the symbols follow from the names of the chains.
_INTEGRIN = re.compile(
    r"(?:(?i:integrin)[ _-])?a(\d{1,2}|2[bB]|II[bB]|[DELMVX])[ _-]?b([1-8])"
    r"(?:[ _-](?i:complex|integrin))?"
)
_SHORT = 2
"""Letters of an alias that is no gene within a complex: the R2 of TGFbR1_R2 is not CD82."""

UNIPROT, COMPLEX = "UniProt ids instead of symbols", "complexes or molecules, not their genes"
TRANSCRIPT = "ids of transcripts or proteins instead of genes"
"""What an entry that names no genes names."""


def subunits(entry: str) -> tuple[list[str], str]:
    """Split an entry into the genes that it names.

    Parameters
    ----------
    entry
        ``TGFBR1``, ``TGFBR1_TGFBR2``, ``COMPLEX:TGFBR1_TGFBR2`` (OmniPath), ``(TGFBR1+TGFBR2)``,
        ``TGFbR1_R2`` (CellChat), ``CD94:KLRC1``, ``integrin_a2b1_complex`` (CellPhoneDB).

    Returns
    -------
    The genes as they are written (an empty name where one is missing between two joints); and what
    the entry names instead, :data:`UNIPROT`, :data:`TRANSCRIPT` or :data:`COMPLEX`, empty if it
    names genes.
    """
    known = known_gene_names()
    entry = entry.strip()
    if entry in known:
        return [entry], ""
    entry = _PREFIX.sub("", entry, count=1) if _PREFIX.match(entry) else entry
    if entry.startswith("(") and entry.endswith(")"):
        entry = entry[1:-1].strip()
    if chains := _INTEGRIN.fullmatch(entry):
        alpha = chains[1].upper().replace("II", "2")
        return [f"ITGA{alpha}", f"ITGB{chains[2]}"], ""
    if kind_of(entry) == "transcript" or _ENTRY_NAME.fullmatch(entry):
        return [entry], TRANSCRIPT
    units = _units(entry)
    in_use = [unit in known.symbols for unit in units]
    if len(units) > 1 and not all(in_use):  # NKX2_1, HLA_DRA
        one = known.by_letters.get(re.sub("[._]", "-", entry))
        if one is not None:
            return [one], ""
    return units, _instead(units)


def name_genes(units: list[str]) -> bool:
    """Check whether all of some names are symbols or Ensembl ids of human genes."""
    return all(unit in known_gene_names() or kind_of(unit) == "ensembl" for unit in units)


def by_uniprot(units: list[str]) -> list[str]:
    """Replace the UniProt ids that the tables of liana have by symbols."""
    return [_symbols_of_uniprot().get(unit.partition("-")[0], unit) for unit in units]


def _units(entry: str) -> list[str]:
    known = known_gene_names()
    units: list[str] = []
    for unit in _JOINT.split(entry):
        loose = [_spelled(word) for word in _LOOSE.split(unit)]
        apart = len(loose) > 1 and all(w in known or kind_of(w) == "uniprot" for w in loose)
        units += loose if apart else [unit]
    units = [_spelled(unit) for unit in units]
    for at, unit in enumerate(units[1:], start=1):
        if 0 < len(unit) <= _SHORT and unit not in known.symbols:
            completed = units[at - 1][: -len(unit)] + unit
            units[at] = completed if completed in known.symbols else unit
    return units


def _instead(units: list[str]) -> str:
    """Say what units that are no genes name."""
    known = known_gene_names()
    unknown = [unit for unit in units if unit and unit not in known]
    if any(kind_of(unit) == "uniprot" for unit in unknown):
        return UNIPROT
    if any(re.search(r"\s", unit) or unit.lower() in _NO_GENES for unit in unknown):
        return COMPLEX
    named = len(units) > 1 and any(re.search("[A-Za-z]", unit) for unit in units)
    short = any(len(unit) <= _SHORT and unit not in known.symbols for unit in units)
    return COMPLEX if named and (short or not all(map(_may_be_gene, unknown))) else ""


def _may_be_gene(unit: str) -> bool:
    if HUMAN_GENE.fullmatch(unit) or _MOUSE_GENE.fullmatch(unit):
        return True
    return unit.upper() in known_gene_names().by_capitals


def _spelled(unit: str) -> str:
    """Correct the case of ``TGFbR2``; lower case and that of mouse genes are left as they are."""
    if unit.islower() or _MOUSE_GENE.fullmatch(unit) or unit in known_gene_names():
        return unit
    return known_gene_names().by_capitals.get(unit.upper(), unit)


@cache
def _symbols_of_uniprot() -> dict[str, str]:
    """Read the symbols of UniProt ids in the tables of liana, without importing it."""
    import pandas as pd

    try:
        spec = importlib.util.find_spec("liana")
    except (ImportError, ValueError):
        spec = None
    paths = [
        Path(folder) / "resource" / "omni_resource.csv"
        for folder in (spec and spec.submodule_search_locations) or ()
    ]
    symbols: dict[str, set[str]] = {}
    for path in filter(Path.is_file, paths):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not {"source", "target", "source_genesymbol", "target_genesymbol"} <= set(table):
            continue
        for side in ("source", "target"):
            for uniprot, symbol in zip(table[side], table[f"{side}_genesymbol"], strict=True):
                if symbol in known_gene_names().symbols:  # not of a complex, not of mouse
                    symbols.setdefault(uniprot, set()).add(symbol)
    return {uniprot: min(names) for uniprot, names in symbols.items() if len(names) == 1}
