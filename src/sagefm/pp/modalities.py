"""A second modality on the spots of a slide: proteins, or other counts, in ``obsm``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm._types import Bools, Floats
from sagefm._writable import writable_names
from sagefm.pp.proteins import are_isotypes, clr, genes_of_proteins

if TYPE_CHECKING:
    from anndata import AnnData

PROTEIN = "protein"
"""The name of the proteins of a slide, wherever they are."""
_PROTEIN_KEYS = (
    *(PROTEIN, _keys.PROTEINS, "prot", "proteins", "adt", "adts", "protein_counts"),
    *("protein_expression", "antibody", "antibodies"),
)
"""Usual keys of proteins in ``obsm``, in lower case; the first that is there is meant."""
OWN = ("sagefm", "X_")
"""Beginnings of keys that hold results, not measurements."""


@dataclass(frozen=True)
class Modality:
    """Raw counts of a second modality on the spots of a slide.

    Attributes
    ----------
    name
        As the user calls it.
    key
        Key of the counts in ``obsm``.
    kind
        ``"protein"``: counts of antibodies; ``"counts"``: any others.
    counts
        Spots × features, raw counts, float64; isotype controls are left out. The row of a spot that
        is not measured is NaN.
    controls
        Spots × isotype controls, likewise; no column if there are none.
    measured
        Whether each spot is measured.
    genes
        Names of the genes of the slide.
    """

    name: str
    key: str
    kind: Literal["protein", "counts"]
    counts: pd.DataFrame
    controls: pd.DataFrame
    measured: Bools
    genes: pd.Index

    def normalized(self) -> pd.DataFrame:
        """Normalize the counts: proteins by CLR within each spot, others as log1p counts."""
        if self.kind == "protein":
            return clr(self.counts)
        return pd.DataFrame(np.log1p(self.counts), copy=False)

    def gene_of(self) -> Mapping[str, str]:
        """Map features to the symbols of their genes; features of no gene are absent."""
        return genes_of_proteins(self.counts.columns, self.genes)

    @property
    def background_level(self) -> float:
        """The median count of the isotype control that has the highest; 0 without any."""
        if not self.controls.shape[1]:
            return 0.0
        return float(self.controls[self.measured].median().max())

    def background(self) -> list[str]:
        """List the proteins whose median does not exceed that of the isotype controls."""
        if not self.controls.shape[1]:
            return []
        medians = self.counts[self.measured].median()
        return [str(name) for name in medians.index[medians <= self.background_level]]


def modality(slide: "AnnData", name: str) -> Modality:
    """Get a second modality of a slide.

    Parameters
    ----------
    slide
        A slide with a table of raw counts in ``obsm``.
    name
        Its key in ``obsm``, or ``"protein"`` for the proteins, whatever their key.

    Raises
    ------
    InputError
        The slide has no such table, or it does not hold counts.
    """
    key = _key_of(slide, name)
    table = _table_of(slide, key)
    if fault := _fault(table):
        raise InputError(f"obsm['{key}'] {fault}; give raw counts, spots × features")
    values = table.astype(np.float64)
    values.columns = _names(table)
    protein = is_protein(key)
    is_control = are_isotypes(values.columns)
    is_control &= protein
    if is_control.all():
        raise InputError(f"obsm['{key}'] has no feature beside isotype controls; give the others")
    missing = values.isna().to_numpy()
    measured = np.asarray(~missing.all(axis=1), dtype=bool)
    if not measured.any():
        raise InputError(f"obsm['{key}'] is measured in no spot (all values are missing)")
    return Modality(
        name=name,
        key=key,
        kind="protein" if protein else "counts",
        counts=values.loc[:, ~is_control],
        controls=values.loc[:, is_control],
        measured=measured,
        genes=slide.var_names,
    )


def in_order(slide: "AnnData", found: Modality) -> pd.DataFrame:
    """Get counts and isotype controls, in the order in which the slide has them."""
    both = pd.concat([found.counts, found.controls], axis=1)
    return both[_names(_table_of(slide, found.key))]


def describe(found: Modality) -> list[str]:
    """Describe proteins in a line or two: isotype controls, and proteins that do not exceed them.

    Other counts need no words.
    """
    if found.kind != "protein":
        return []
    n_proteins, n_controls = found.counts.shape[1], found.controls.shape[1]
    if not n_controls:
        return [
            f"{numbered(n_proteins, 'protein')} without an isotype control, so that their "
            "background is not known"
        ]
    line = f"{numbered(n_proteins, 'protein')} and {numbered(n_controls, 'isotype control')}"
    level = f"the background is {found.background_level:g} counts in the median spot"
    if not (low := found.background()):
        return [f"{line}; {level}, and all proteins exceed it"]
    return [f"{line}; {level}, and {len(low)} do not exceed it: {few(low, 40)}"]


def describe_proteins(slide: "AnnData") -> list[str]:
    """Describe the proteins of a slide, or why they cannot be used; nothing without proteins."""
    key = _protein_key(slide)
    if key is None:
        return []
    try:
        return [f"obsm['{key}']: {line}" for line in describe(modality(slide, key))]
    except InputError as error:
        return [str(error)]


def summarize_modalities(slide: "AnnData") -> str:
    """List the second modalities of a slide, with what they hold and where they are measured."""
    lines = []
    for name in modality_names(slide):
        found = modality(slide, name)
        what = numbered(found.counts.shape[1], "feature")
        if found.kind == "protein":
            n_proteins, n_controls = found.counts.shape[1], found.controls.shape[1]
            what = numbered(n_proteins, "protein")
            what += f" and {numbered(n_controls, 'isotype control')}"
        gaps = "" if found.measured.all() else f" in {numbered(int(found.measured.sum()), 'spot')}"
        lines.append(f"obsm['{found.key}'] ({what}{gaps})")
    return ", ".join(lines)


def modality_names(slide: "AnnData") -> list[str]:
    """List the second modalities of a slide: tables of raw counts in ``obsm``."""
    proteins = _protein_key(slide)
    tables = {
        key: PROTEIN if key == proteins else key
        for key in map(str, slide.obsm)
        if key == proteins or _may_be_counts(slide, key)
    }
    return [name for key, name in tables.items() if _is_usable(slide, key)]


def _may_be_counts(slide: "AnnData", key: str) -> bool:
    return isinstance(slide.obsm[key], pd.DataFrame) and not (
        key.startswith(OWN) or is_protein(key) or key == _keys.SPATIAL
    )


def _is_usable(slide: "AnnData", key: str) -> bool:
    try:
        modality(slide, key)
    except InputError:
        return False
    return True


def is_protein(name: str) -> bool:
    """Whether a modality is called as proteins are."""
    return name.lower() in _PROTEIN_KEYS


def _protein_key(slide: "AnnData") -> str | None:
    keys = filter(is_protein, map(str, slide.obsm))
    return min(keys, key=lambda key: _PROTEIN_KEYS.index(key.lower()), default=None)


def _key_of(slide: "AnnData", name: str) -> str:
    """Find the key of a modality."""
    if name in slide.obsm and name != _keys.SPATIAL:
        return name
    proteins = _protein_key(slide)
    if is_protein(str(name)) and proteins is not None:
        return proteins
    there = modality_names(slide)
    matching = [key for key in there if key.lower() == str(name).lower()]
    if len(matching) == 1:
        return _key_of(slide, matching[0])
    has = f"it has {few(there, 10)}" if there else "it has none"
    raise InputError(
        f"the slide has no second modality {name!r} ({has}); add one with "
        f"sagefm.pp.add_counts(slide, {name!r}, table)"
    )


def _table_of(slide: "AnnData", key: str) -> pd.DataFrame:
    """Get a slot of ``obsm`` as a table; scvi-tools names proteins in ``uns``."""
    stored: Any = slide.obsm[key]
    if isinstance(stored, pd.DataFrame):
        return stored
    try:
        values = stored.toarray() if hasattr(stored, "toarray") else np.asarray(stored)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2:
        return pd.DataFrame(index=slide.obs_names)
    named = slide.uns.get(f"{key}_names", slide.uns.get(f"{key.split('_')[0]}_names"))
    columns = np.asarray(named).astype(str) if named is not None else np.empty(0)
    if columns.shape != (values.shape[1],):
        columns = np.array([f"{key}_{number + 1}" for number in range(values.shape[1])])
    return pd.DataFrame(values, index=slide.obs_names, columns=columns)


def _names(table: pd.DataFrame) -> pd.Index:
    """Name features as a file has them, so that results have the same names."""
    return pd.Index(writable_names(list(table.columns)), dtype=object)


def _fault(table: pd.DataFrame) -> str:
    """Describe why a table holds no raw counts of a modality; nothing if it does."""
    if not table.shape[1]:
        return "has no columns"
    if not table.columns.is_unique:
        return f"has the column {table.columns[table.columns.duplicated()][0]!r} more than once"
    kinds = {getattr(dtype, "kind", "O") for dtype in table.dtypes}
    if kinds - set("iufb"):
        return "has columns that are no numbers"
    return value_fault(table.to_numpy(dtype=np.float64, na_value=np.nan))


def value_fault(values: Floats) -> str:
    """Describe why values, of which rows may be missing, are no raw counts; nothing if they are."""
    missing = np.isnan(values)
    whole = missing.all(axis=1)
    if missing[~whole].any():
        return "has missing values in spots that are measured"
    known = values[~whole]
    if np.isinf(known).any():
        return "has infinite values"
    if (known < 0).any():
        return f"has negative values (down to {known.min():.3g})"
    if (known != np.rint(known)).any():
        return "has values that are no whole numbers"
    return ""
