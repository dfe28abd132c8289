"""Find the raw counts and coordinates of an AnnData."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm.pp.axes import xy_columns
from sagefm.pp.features import split_features
from sagefm.pp.matrix import canonical, require_exact, structure_fault, to_csr, value_fault
from sagefm.pp.neighborhood import require_scale
from sagefm.pp.on_disk import counts_on_disk


@dataclass(frozen=True)
class Counts:
    """Raw counts and the genes they belong to.

    Attributes
    ----------
    matrix
        Spots × genes, float32, whole numbers, canonical (sorted, no duplicates). It may share
        memory with the slide: do not change it.
    var
        A row per column of `matrix`.
    where
        Where the counts were: ``"X"``, ``"raw"`` or ``"layers['…']"``.
    note
        A note for the user about the choice, or empty.
    others
        Counts of features that are not genes: a table of spots × features per type.
    """

    matrix: csr_matrix
    var: pd.DataFrame
    where: str
    note: str = ""
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def counts(slide: AnnData, layer: str | None = None) -> Counts:
    """Find the raw counts of a slide, and log where they are if that is not ``X``.

    Parameters
    ----------
    slide
        Any AnnData; it is not modified.
    layer
        ``"X"``, ``"raw"`` or a key of ``layers``. Otherwise ``X`` if it holds counts, else
        ``layers["counts"]``, else ``raw`` (where CELLxGENE keeps them).

    Returns
    -------
    The counts with their own table of genes (``raw`` may have more genes than ``X``).

    Raises
    ------
    InputError
        No counts there: negative, NaN, infinite, fractional or impossibly large values; no genes;
        or the matrix is damaged.
    """
    found = find_counts(slide, layer)
    if found.note:
        logger.warning(found.note)
    return found


def find_counts(slide: AnnData, layer: str | None = None) -> Counts:
    """Find the raw counts of a slide; messages are in ``Counts.note`` and not logged."""
    faults: dict[str, str] = {}
    if (source := counts_on_disk(slide, layer)) is not None:
        return Counts(source.load(), slide.var, source.group)
    for place in _usual_places(slide) if layer is None else [layer]:
        where = _location(place)
        matrix, var, others, apart = split_features(*_matrix_at(slide, place), slide.obs_names)
        if fault := value_fault(matrix):
            faults[place] = fault
            continue
        matrix, rounded = canonical(matrix, where)
        chosen = ""
        if faults:
            first, why = next(iter(faults.items()))
            chosen = f"{_location(first)} holds {why}; the counts are those of {where}"
        note = "; ".join(filter(None, [chosen, rounded, apart]))
        return Counts(matrix, var, where, note, others)
    raise InputError(_no_counts(slide, faults))


def _usual_places(slide: AnnData) -> list[str]:
    places = ["X"] if _stored(slide, "X") is not None else []
    places += [_keys.COUNTS] if _keys.COUNTS in slide.layers else []
    return places + (["raw"] if slide.raw is not None else [])


def _location(place: str) -> str:
    return place if place in ("X", "raw") else f"layers['{place}']"


def _matrix_at(slide: AnnData, place: str) -> tuple[csr_matrix, pd.DataFrame]:
    """Get the matrix at a place as CSR (without a copy where it is one) and its table of genes."""
    if place == "raw" and slide.raw is not None:
        same = slide.raw.var_names.equals(slide.var_names)
        return to_csr(_stored(slide, place), place), slide.var if same else slide.raw.var
    if place in slide.layers or (place == "X" and _stored(slide, place) is not None):
        return to_csr(_stored(slide, place), _location(place)), slide.var
    available = [_location(other) for other in _every_place(slide)]
    raise InputError(f"there is no layer {place!r}; choose one of: {few(available, 8) or 'none'}")


def _stored(slide: AnnData, place: str) -> Any:
    """Get the matrix at a place; that of a view only if the matrix it is cut from is sound."""
    parent = slide._adata_ref if slide.is_view and place != "raw" else None
    if parent is not None and (fault := structure_fault(_stored(parent, place))):
        raise InputError(f"{_location(place)} is damaged: {fault}; write the slide again")
    if place == "raw":
        return slide.raw.X
    return slide.X if place == "X" else slide.layers[place]


def _every_place(slide: AnnData) -> list[str]:
    layers = [key for key in slide.layers if key is not None]  # None is X
    return list(dict.fromkeys([*_usual_places(slide), *layers]))


def _no_counts(slide: AnnData, faults: dict[str, str]) -> str:
    if not faults:
        return "there is no X, no layers['counts'] and no raw; give a slide with raw counts in X"
    tried, fault = next(iter(faults.items()))
    others = [place for place in _every_place(slide) if place not in faults]
    good = [place for place in others if not _hidden_fault(slide, place)]
    if good:
        remedy = f"pass layer={good[0]!r}"
        remedy += f" (counts are in {few(map(_location, good))})"
    elif bad := [_location(place) for place in [*others, *list(faults)[1:]]]:
        remedy = f"{few(bad)} hold no counts either: add a layer that does and pass layer="
    else:
        remedy = "add a layer that holds them and pass layer=, or give the slide with raw counts"
    if "not integers" in fault and not good:
        values = {"X": "slide.X", "raw": "slide.raw.X"}.get(tried, f"slide.layers[{tried!r}]")
        values += ".data" if issparse(_stored(slide, tried)) else "[:]"
        remedy += (
            ". If they are corrected counts (SpotClean, SoupX, decontX), round them: "
            f"{values} = {values.removesuffix('[:]')}.round()"
        )
    return f"{_location(tried)} holds {fault}, not raw counts; {remedy}"


def _hidden_fault(slide: AnnData, place: str) -> str:
    """Describe why a place that was not asked for holds no counts; empty if it does."""
    try:
        return value_fault(split_features(*_matrix_at(slide, place), slide.obs_names)[0])
    except InputError as error:
        return str(error)


def sum_duplicates(found: Counts) -> Counts:
    """Sum the columns of genes that have the same name, and note their number.

    The order is that of first occurrence, other columns of ``var`` are those of the first, and the
    Ensembl ids are joined with ``;``.
    """
    names = found.var.index
    if names.is_unique:
        return found
    codes, unique = pd.factorize(names)
    to_unique = csr_matrix(
        (np.ones(len(names), dtype=np.float32), codes, np.arange(len(names) + 1)),
        shape=(len(names), len(unique)),
    )
    var = found.var[~names.duplicated()].copy()
    if _keys.GENE_IDS in var:
        twins = found.var.loc[names.duplicated(keep=False), _keys.GENE_IDS].astype(str)
        joined = twins.groupby(level=0).agg(lambda ids: ";".join(filter(None, dict.fromkeys(ids))))
        var[_keys.GENE_IDS] = var[_keys.GENE_IDS].astype(object)
        var.loc[joined.index, _keys.GENE_IDS] = joined
    matrix, _ = canonical(found.matrix @ to_unique, found.where)
    require_exact(matrix, found.where)
    return replace(
        found,
        matrix=matrix,
        var=var,
        note=f"{duplicate_names(names)}: their counts were summed",
    )


def duplicate_names(names: pd.Index) -> str:
    """Describe duplicated gene names."""
    repeated = names[names.duplicated()].unique()
    verb = "is" if len(repeated) == 1 else "are"
    return f"{numbered(len(repeated), 'gene name')} {verb} duplicated ({few(repeated)})"


def coordinates(slide: AnnData) -> NDArray[np.float64]:
    """Get the coordinates of the spots.

    Returns
    -------
    Spots × 2, x = pixel column, y = pixel row (or whatever unit the slide has).

    Raises
    ------
    InputError
        ``obsm["spatial"]`` is missing, not finite, the same for all spots, or out of scale.
    """
    return find_coordinates(slide)[0]


def find_coordinates(slide: AnnData) -> tuple[NDArray[np.float64], str]:
    """Get the coordinates as :func:`coordinates`, and a note about them or nothing."""
    if _keys.SPATIAL not in slide.obsm:
        columns = "pxl_col_in_fullres", "pxl_row_in_fullres"
        if all(column in slide.obs for column in columns):
            remedy = f"set slide.obsm['spatial'] = slide.obs[{list(columns)}].to_numpy()"
        else:
            others = f" (obsm has: {few(slide.obsm)})" if len(slide.obsm) else ""
            remedy = f"put x and y of each spot (spots × 2) in obsm['spatial']{others}"
        raise InputError(f"no coordinates: obsm['spatial'] is missing; {remedy}")
    xy, note = _xy(slide.obsm[_keys.SPATIAL])
    if xy.shape != (slide.n_obs, 2):
        raise InputError("obsm['spatial'] is not a table of spots × 2 numbers; put x and y there")
    if bad := int((~np.isfinite(xy).all(axis=1)).sum()):
        raise InputError(
            f"{numbered(bad, 'spot')} without coordinates: NaN or infinite in obsm['spatial']; "
            "leave those spots out or fill them in"
        )
    if len(xy) > 1 and (xy == xy[0]).all():
        raise InputError(
            "all spots have the same coordinates in obsm['spatial']; set their real ones"
        )
    try:
        require_scale(xy)
    except InputError as error:
        raise InputError(f"obsm['spatial']: {error}") from error
    return xy, note


def _xy(values: Any) -> tuple[NDArray[np.float64], str]:
    """Convert stored coordinates to numbers, by the names of the columns if there are any."""
    note, stored = "", values
    if isinstance(values, pd.DataFrame):
        x, y, note = xy_columns(values.columns)
        if values.shape[1] > 2:
            left = few(name for i, name in enumerate(values.columns) if i not in (x, y))
            note = f"columns of obsm['spatial'] that are not x and y are left out: {left}"
        # Columns of text or of nullable numbers are converted one by one.
        stored = [pd.to_numeric(values.iloc[:, i], errors="coerce").tolist() for i in (x, y)]
        stored = np.array(stored, dtype=object).T
        stored[pd.isna(stored)] = np.nan
    try:
        if issparse(stored):
            stored = np.empty(0) if structure_fault(stored) else values.toarray()
        if isinstance(stored, np.ma.MaskedArray):
            stored = np.ma.filled(stored.astype(np.float64), np.nan)
        array = np.asarray(stored)
        if array.dtype.kind not in "biufOUST":
            return np.empty((0, 0)), note
        return array[:, :2].astype(np.float64), note
    except (ValueError, TypeError, IndexError):
        return np.empty((0, 0)), note
