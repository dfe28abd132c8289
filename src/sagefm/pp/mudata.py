"""MuData in and out: the genes are the slide, other modalities are tables of counts in ``obsm``."""

import sys
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._extras import require
from sagefm._text import few
from sagefm.pp.add_counts import attach
from sagefm.pp.anndata_file import quietly
from sagefm.pp.container import survey_h5
from sagefm.pp.counts import counts
from sagefm.pp.features import modality_of_genes
from sagefm.pp.modalities import (
    PROTEIN,
    describe_proteins,
    in_order,
    is_protein,
    modality,
    modality_names,
)

if TYPE_CHECKING:
    from mudata import MuData

_GENES, _PROTEINS = "rna", "prot"
"""What muon calls genes and proteins."""


def is_mudata(source: Any) -> bool:
    """Whether something is a MuData object; the library is imported if there is one."""
    library = sys.modules.get("mudata")
    return library is not None and isinstance(source, library.MuData)


def read_mudata(path: Path, notes: list[str]) -> AnnData:
    """Read an .h5mu, without the library for it.

    Raises
    ------
    InputError
        It is damaged, or it does not tell which modality has the genes.
    """
    import h5py
    from anndata.io import read_elem

    def reader() -> Any:
        survey_h5(path)
        with closing(h5py.File(path, "r")) as file:
            stored = file["mod"]
            modality_of_genes(list(stored))
            order = [name for name in stored.attrs.get("mod-order", ()) if name in stored]
            names = dict.fromkeys([*order, *stored])  # h5py sorts them
            parts = {name: read_elem(stored[name]) for name in names}
            whole = {name: read_elem(file[name]) for name in ("obs", "obsm", "uns") if name in file}
        return _slide_of(parts, whole["obs"], whole.get("obsm", {}), whole.get("uns", {}), notes)

    return quietly(reader)


def open_mudata(held: "MuData", notes: list[str]) -> AnnData:
    """Open the slide of a MuData object, which is not changed."""
    return _slide_of(dict(held.mod), held.obs, held.obsm, held.uns, notes)


def from_mudata(mudata: "MuData") -> AnnData:
    """Make a slide of a MuData object, which is not changed.

    :func:`sagefm.read` does the same and checks the slide.

    Parameters
    ----------
    mudata
        Its modality ``rna`` has the genes.

    Returns
    -------
    The modality of the genes, with the counts of each other modality in ``obsm``, as a table of
    spots × features; proteins (``prot``) are in ``obsm["antibody_capture"]``. Spots that a modality
    lacks are NaN in it. Coordinates are those of the genes, or of the whole object.

    Raises
    ------
    InputError
        No modality has the genes.
    """
    if not is_mudata(mudata):
        raise InputError(f"{type(mudata).__name__} is no MuData; give one, or use sagefm.read")
    notes: list[str] = []
    slide = open_mudata(mudata, notes)
    notes += describe_proteins(slide)
    for line in notes:
        logger.warning("MuData: %s", line)
    return slide


def to_mudata(slide: AnnData) -> "MuData":
    """Make a MuData object of a slide and its tables of counts.

    Parameters
    ----------
    slide
        It is not changed.

    Returns
    -------
    The modality ``rna`` with all of the slide but the tables, ``prot`` with the raw counts of the
    proteins, isotype controls included, and each other table under its name. A modality has only
    the spots that are measured, with their coordinates.

    Raises
    ------
    InputError
        The library mudata is not installed, or the counts of the slide are on disk.
    """
    mudata = require("mudata", "multiome", "MuData")
    if slide.X is None:
        counts(slide)  # raises an error if there are none
        raise InputError("the counts of the slide are on disk; read it without backed")
    genes = slide.copy()
    parts = {_GENES: genes}
    for name in modality_names(slide):
        if name == _GENES:
            raise InputError(f"obsm['{name}'] would take the place of the genes; rename it")
        found = modality(slide, name)
        table = in_order(slide, found)[found.measured]
        obs, var = (pd.DataFrame(index=axis.astype(str)) for axis in (table.index, table.columns))
        part = AnnData(table.to_numpy(np.float32), obs=obs, var=var)
        if _keys.SPATIAL in slide.obsm:
            part.obsm[_keys.SPATIAL] = np.asarray(slide.obsm[_keys.SPATIAL])[found.measured]
        parts[_PROTEINS if name == PROTEIN else name] = part
        del genes.obsm[found.key]
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings():
        # A protein may be called as its gene: names are unique within a modality.
        warnings.filterwarnings("ignore", message="var_names are not unique")
        return mudata.MuData(parts)


def _plainly_named(part: AnnData, name: str) -> AnnData:
    """Remove the name of the modality from features, which makes them unique in a MuData."""
    prefix = f"{name}:"
    if not (part.n_vars and part.var_names.str.startswith(prefix).all()):
        return part
    part = part.copy()
    part.var_names = part.var_names.str.removeprefix(prefix)
    return part


def _slide_of(
    parts: Mapping[str, AnnData],
    obs: pd.DataFrame,
    obsm: Mapping[str, Any],
    uns: Mapping[str, Any],
    notes: list[str],
) -> AnnData:
    """Make a slide of modalities and what they share."""
    name = modality_of_genes(list(parts))
    slide = _plainly_named(parts[name], name).copy()
    if _keys.SPATIAL not in slide.obsm and _keys.SPATIAL in obsm:
        whole = pd.DataFrame(np.asarray(obsm[_keys.SPATIAL]), index=obs.index)
        slide.obsm[_keys.SPATIAL] = whole.reindex(slide.obs_names).to_numpy()
    if _keys.SPATIAL not in slide.uns and _keys.SPATIAL in uns:
        slide.uns[_keys.SPATIAL] = uns[_keys.SPATIAL]
    kept, left = [], []
    for other in (other for other in parts if other != name):
        key = _keys.PROTEINS if is_protein(other) else other
        lines: list[str] = []
        try:
            attach(slide, key, _plainly_named(parts[other], other), lines)
        except InputError as error:
            left.append(other)
            notes.append(f"the modality '{other}' is left out: {error}")
            continue
        kept.append(f"{other} in obsm['{key}']")
        notes += [f"{other}: {line}" for line in lines]
    also = f"; {few(kept, 8)}" if kept else ""
    also += f"; left out: {few(left, 8)}" if left else ""
    notes.append(f"the modality '{name}' of the file is read{also}")
    return slide
