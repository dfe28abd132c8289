"""Entries of tables of ligands and receptors: single genes, complexes of genes, other names."""

import re

from sagefm.pp.gene_forms import kind_of
from sagefm.pp.gene_names import known_gene_names

# Ensembl ends the ids of genes on both X and Y with _PAR_Y: those underscores join no subunits.
_JOINT = re.compile(r"\s*(?:(?<!_PAR)_(?!PAR_Y)|[+&])\s*")
_LOOSE = re.compile(r"[\s:;,|]+")
HUMAN_GENE = re.compile(r"[A-Z][A-Z0-9._-]*|C[0-9XY]+orf[0-9]+")
_MOUSE_GENE = re.compile(r"[A-Z][a-z0-9-]+")
_NO_GENES = {"complex", "receptor", "ligand", "enzyme"}

UNIPROT, COMPLEX = "UniProt ids instead of symbols", "complexes or molecules, not their genes"
"""What an entry that names no genes names."""


def subunits(entry: str) -> tuple[list[str], str]:
    """Split an entry into the genes that it names.

    Parameters
    ----------
    entry
        ``TGFBR1``, ``TGFBR1_TGFBR2``, ``COMPLEX:TGFBR1_TGFBR2`` (OmniPath), ``(TGFBR1+TGFBR2)``
        (CellChat), ``CD94:NKG2A``.

    Returns
    -------
    The genes as they are written (an empty name where one is missing between two joints); and what
    the entry names instead, :data:`UNIPROT` or :data:`COMPLEX`, empty if it names genes.
    """
    known = known_gene_names()
    entry = entry.strip()
    if entry in known:
        return [entry], ""
    entry = re.sub(r"^complex:", "", entry, flags=re.IGNORECASE)
    if entry.startswith("(") and entry.endswith(")"):
        entry = entry[1:-1].strip()
    units: list[str] = []
    for unit in _JOINT.split(entry):
        loose = [_spelled(word) for word in _LOOSE.split(unit)]
        units += loose if len(loose) > 1 and all(word in known for word in loose) else [unit]
    units = [_spelled(unit) for unit in units]
    unknown = [unit for unit in units if unit and unit not in known]
    if any(kind_of(unit) == "uniprot" for unit in unknown):
        return units, UNIPROT
    if any(re.search(r"\s", unit) or unit.lower() in _NO_GENES for unit in unknown):
        return units, COMPLEX
    named = len(units) > 1 and any(re.search("[A-Za-z]", unit) for unit in unknown)
    return units, COMPLEX if named and not all(map(_may_be_gene, unknown)) else ""


def _may_be_gene(unit: str) -> bool:
    if HUMAN_GENE.fullmatch(unit) or _MOUSE_GENE.fullmatch(unit):
        return True
    return unit.upper() in known_gene_names().by_capitals


def _spelled(unit: str) -> str:
    """Correct the case of ``TGFbR2``; lower case and that of mouse genes are left as they are."""
    if unit.islower() or _MOUSE_GENE.fullmatch(unit) or unit in known_gene_names():
        return unit
    return known_gene_names().by_capitals.get(unit.upper(), unit)
