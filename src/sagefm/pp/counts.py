"""Find the raw counts and coordinates of an AnnData."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._text import few, numbered

_LOG_NORMALIZED_BELOW = 20.0
"""Log-normalized values stay below this: no spot has e^20 counts."""


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
    """

    matrix: csr_matrix
    var: pd.DataFrame
    where: str
    note: str = ""


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
        No counts there: negative, NaN, infinite or fractional values.
    """
    found = find_counts(slide, layer)
    if found.note:
        logger.warning(found.note)
    return found


def find_counts(slide: AnnData, layer: str | None = None) -> Counts:
    """Find the raw counts of a slide; a message is in ``Counts.note`` and not logged."""
    faults: dict[str, str] = {}
    for place in _usual_places(slide) if layer is None else [layer]:
        matrix, var = _matrix_at(slide, place)
        fault = _fault(matrix)
        if not fault:
            where = _location(place)
            note = ""
            if faults:
                first, why = next(iter(faults.items()))
                note = f"{_location(first)} holds {why}; the counts are those of {where}"
            return Counts(_canonical(matrix), var, where, note)
        faults[place] = fault
    raise InputError(_no_counts(slide, faults))


def _usual_places(slide: AnnData) -> list[str]:
    places = ["X"] if slide.X is not None else []
    places += [_keys.COUNTS] if _keys.COUNTS in slide.layers else []
    return places + (["raw"] if slide.raw is not None else [])


def _location(place: str) -> str:
    return place if place in ("X", "raw") else f"layers['{place}']"


def _matrix_at(slide: AnnData, place: str) -> tuple[csr_matrix, pd.DataFrame]:
    """Get the matrix at a place as CSR (without a copy where it is one) and its table of genes."""
    if place == "raw" and slide.raw is not None:
        same = slide.raw.var_names.equals(slide.var_names)
        return _as_csr(slide.raw.X, place), slide.var if same else slide.raw.var
    if place == "X" and slide.X is not None:
        return _as_csr(slide.X, place), slide.var
    if place in slide.layers:
        return _as_csr(slide.layers[place], place), slide.var
    available = [_location(other) for other in _every_place(slide)]
    raise InputError(f"there is no layer {place!r}; choose one of: {few(available, 8) or 'none'}")


def _every_place(slide: AnnData) -> list[str]:
    layers = [key for key in slide.layers if key is not None]  # None is X, from anndata 0.13 on
    return list(dict.fromkeys([*_usual_places(slide), *layers]))


def _as_csr(values: Any, place: str) -> csr_matrix:
    if hasattr(values, "to_memory"):  # a matrix on disk
        values = values.to_memory()
    if isinstance(values, pd.DataFrame):
        values = values.to_numpy()
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"{_location(place)} holds values of type {values.dtype}, not numbers; "
            "give raw counts, or pass layer= to name where they are"
        )
    return csr_matrix(values)


def _fault(matrix: csr_matrix) -> str:
    """Describe why a matrix does not hold counts; empty if it does."""
    values = matrix.data
    if not values.size or values.dtype.kind == "b":
        return ""
    low, high = values.min(), values.max()  # both are NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        return numbered(int((~np.isfinite(values)).sum()), "NaN or infinite value")
    if low < 0:
        return f"negative values (from {low:.4g} to {high:.4g}; it looks scaled)"
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        low = min(low, 0.0) if matrix.nnz < np.prod(matrix.shape) else low
        looks = "log-normalized" if high < _LOG_NORMALIZED_BELOW else "normalized"
        return f"values from {low:.4g} to {high:.4g} that are not integers (it looks {looks})"
    return ""


def _no_counts(slide: AnnData, faults: dict[str, str]) -> str:
    if not faults:
        return "there is no X, no layers['counts'] and no raw; give a slide with raw counts in X"
    tried, fault = next(iter(faults.items()))
    others = [place for place in _every_place(slide) if place not in faults]
    good = [place for place in others if not _fault(_matrix_at(slide, place)[0])]
    if good:
        remedy = f"pass layer={good[0]!r}"
        remedy += f" (counts are in {few(map(_location, good))})"
    elif bad := [_location(place) for place in [*others, *list(faults)[1:]]]:
        remedy = f"{few(bad)} hold no counts either: add a layer that does and pass layer="
    else:
        remedy = "add a layer that holds them and pass layer=, or give the slide with raw counts"
    return f"{_location(tried)} holds {fault}, not raw counts; {remedy}"


def _canonical(matrix: csr_matrix) -> csr_matrix:
    if matrix.dtype != np.float32:
        matrix = matrix.astype(np.float32)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


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
    return replace(
        found,
        matrix=_canonical(found.matrix @ to_unique),
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
        ``obsm["spatial"]`` is missing, not finite, or the same for all spots.
    """
    if _keys.SPATIAL not in slide.obsm:
        columns = "pxl_col_in_fullres", "pxl_row_in_fullres"
        if all(column in slide.obs for column in columns):
            remedy = f"set slide.obsm['spatial'] = slide.obs[{list(columns)}].to_numpy()"
        else:
            others = f" (obsm has: {few(slide.obsm)})" if len(slide.obsm) else ""
            remedy = f"put x and y of each spot (spots × 2) in obsm['spatial']{others}"
        raise InputError(f"no coordinates: obsm['spatial'] is missing; {remedy}")
    try:
        xy = np.asarray(slide.obsm[_keys.SPATIAL])[:, :2].astype(np.float64)
    except (ValueError, TypeError, IndexError):
        xy = np.empty((0, 0))
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
    return xy
