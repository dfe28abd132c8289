"""Proteins that antibodies measure: their names and genes, isotype controls, normalization."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._types import Bools, Floats
from sagefm.pp.gene_names import known_gene_names

_ANTIBODIES = """
ASMA=ACTA2 ALPHASMA=ACTA2 SMA=ACTA2 B220=PTPRC CD3=CD3E CD16=FCGR3A CD25=IL2RA CD45R=PTPRC
CD45RA=PTPRC CD45RB=PTPRC CD45RO=PTPRC ECADHERIN=CDH1 ER=ESR1 HLAABC=HLA-A HLADR=HLA-DRA IGD=IGHD
IGM=IGHM KI67=MKI67 NEUN=RBFOX3 PD1=PDCD1 PR=PGR TCRAB=TRAC TCRGD=TRDC VIMENTIN=VIM
"""
_GENES = dict(pair.split("=") for pair in _ANTIBODIES.split())
"""Genes of antibodies by letters and digits of their name, where the tables of genes have none, or
another: an isoform, a chain of a complex, an alias of several genes."""
_KERATIN = re.compile(r"(?:CYTO)?KERATIN(\d+)|CK(\d+)")
_PREFIX = re.compile(
    r"^(?:anti[-_ ]?)?(?:(?:hu|human|mouse|adt|ab|prot|protein|antibody|[abc]\d{4})[-_. :]+)*", re.I
)
_SUFFIX = re.compile(
    r"[-_. ](?:totalseq[-_ ]?[abcd]?|tsa|tsb|tsc|prot|protein|adt|ab|antibody|\d+)$", re.I
)
_CLONE = re.compile(r"[ _|:(\[/].*$|(?<=\d)[a-z]?-[A-Z0-9]{3,}$")
"""What follows the name of a protein: ``CD3_UCHT1``, ``CD3 (UCHT1)``, ``CD3-UCHT1``."""

_GREEK = str.maketrans({"\N{GREEK SMALL LETTER ALPHA}": "a", "\N{GREEK SMALL LETTER BETA}": "b"})

_ISOTYPE = re.compile(
    r"isotype|\b(?:mouse|rat|hamster|rabbit|goat|ms|rb) ?ig[gaem]"
    r"|\big[gaem]\w*(?: \w+)*? (?:control|ctrl|ctl)\b|\b(?:control|ctrl|ctl) (?:\w+ )*?ig[gaem]"
    r"|^igg[1-3]?[abc]?k?(?: \d+)?$"
)

Table = TypeVar("Table", pd.DataFrame, Floats)


def clr(counts: Table) -> Table:
    """Normalize protein counts by the centered log ratio within each spot.

    The value of protein j in a spot with counts x of p proteins is
    log1p(x_j / exp(Σ log1p(x) / p)). This is ``NormalizeData(method = "CLR", margin = 2)`` of
    Seurat, and ``muon.prot.pp.clr(axis=1)``: the margin is that of the spots, so that the depth
    and the tissue of a spot cancel. A spot that is not measured (NaN) stays so.

    Parameters
    ----------
    counts
        Raw counts, spots × proteins, without isotype controls.

    Returns
    -------
    A table or array of the same shape, float64.

    Raises
    ------
    InputError
        These are no counts, but a slide, or there are negative values.

    Examples
    --------
    >>> sagefm.pp.clr(slide.obsm["antibody_capture"])  # doctest: +SKIP
    """
    if not isinstance(counts, pd.DataFrame | np.ndarray) or counts.ndim != 2:
        raise InputError(
            f"clr: {type(counts).__name__} is no table of spots × proteins; give that of the "
            "proteins, such as slide.obsm['antibody_capture']"
        )
    try:
        values = np.asarray(counts, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("clr: the table has values that are no numbers; leave them out") from error
    if (values < 0).any() or np.isinf(values).any():
        raise InputError("clr: the table has negative or infinite values; give raw counts")
    mean = np.log1p(values).mean(axis=1, keepdims=True) if values.shape[1] else 0.0
    normalized: Floats = np.log1p(values / np.exp(mean))
    if isinstance(counts, pd.DataFrame):
        return pd.DataFrame(normalized, index=counts.index, columns=counts.columns)
    return normalized


def are_isotypes(names: Iterable[str]) -> Bools:
    """Recognize isotype controls by their names, such as ``mouse_IgG1k`` or ``IgG2b_control``."""
    plain = [re.sub(r"[\W_]+", " ", _SUFFIX.sub("", str(name)).lower()).strip() for name in names]
    return np.array(
        [_ISOTYPE.search(name) is not None and "anti" not in name.split() for name in plain],
        dtype=bool,
    )


def genes_of_proteins(names: Iterable[str], genes: Iterable[str]) -> dict[str, str]:
    """Find the genes that encode proteins.

    Parameters
    ----------
    names
        Of antibodies: gene symbols, aliases, or names of the protein, which may have the marks of
        a panel (``CD3E.1``, ``CD3_TotalSeqB``, ``anti-human CD3 (UCHT1)``).
    genes
        Of the slide: a protein that is called like one of them is of that gene.

    Returns
    -------
    By name of the protein the symbol of its gene, as the slide writes it if it has the gene.
    Proteins of no gene or of several are absent.
    """
    own = {str(gene): str(gene) for gene in genes}
    by_capitals = {gene.upper(): gene for gene in reversed(own)}
    found = {}
    for name in map(str, names):
        for form in _forms(name):
            gene = own.get(form) or _symbol(form)
            if gene or (gene := by_capitals.get(form.upper())):
                found[name] = by_capitals.get(gene.upper(), gene) if gene not in own else gene
                break
    return found


def _forms(name: str) -> Iterator[str]:
    """List a name, then its forms without the marks of panels, one by one."""
    for start in (name, _CLONE.sub("", _PREFIX.sub("", _SUFFIX.sub("", name.strip())))):
        form, longer = _PREFIX.sub("", start.strip()), ""
        yield start
        while form != longer:
            yield form
            longer, form = form, _SUFFIX.sub("", form)


def _symbol(name: str) -> str | None:
    letters = re.sub(r"[\W_]+", "", name.translate(_GREEK).upper())
    if letters in _GENES:
        return _GENES[letters]
    if keratin := _KERATIN.fullmatch(letters):
        return f"KRT{keratin[1] or keratin[2]}"
    known = known_gene_names()
    return known.symbol(name) or known.symbol(known.by_capitals.get(name.upper(), ""))
