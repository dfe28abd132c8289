"""Find what spots are colored by: a column of obs, a gene, or a column of obsm."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._keys import DOMAIN, IMPUTED
from sagefm._text import few
from sagefm._uns import provenance, text
from sagefm.pl._canvas import Canvas
from sagefm.pp.on_disk import counts_on_disk

if TYPE_CHECKING:
    from anndata import AnnData

_UNITS = {"log1p": "log1p counts", "counts_per_10k": "counts per 10,000"}


class Values(NamedTuple):
    """A value per spot: categories (also of strings and booleans) or numbers."""

    spots: "pd.Series[Any]"
    title: str
    unit: str = ""

    @property
    def imputed(self) -> bool:
        return self.title.endswith("(imputed)")

    @property
    def categorical(self) -> bool:
        return isinstance(self.spots.dtype, pd.CategoricalDtype)


def values_on(canvas: Canvas, name: str, layer: str | None) -> Values:
    """Get what a name stands for, for the spots of a section.

    Raises
    ------
    InputError
        The slide has nothing of that name.
    """
    try:
        found = find_values(canvas.slide, name, layer)
    except InputError as error:
        raise InputError(f"{canvas.name}: {error}" if canvas.name else str(error)) from error
    return found._replace(spots=found.spots.iloc[canvas.rows])


def find_values(slide: "AnnData", name: str, layer: str | None) -> Values:
    """Look for a name in obs, then the genes, then obsm (``"KEY:COLUMN"``), then imputed genes."""
    if name in slide.obs:
        column = slide.obs[name]
        if isinstance(column, pd.DataFrame):
            raise InputError(f"obs has {column.shape[1]} columns {name!r}; rename them")
        return Values(_numbers_or_categories(column), name)
    if name in slide.var_names:
        return _gene(slide, name, layer)
    for key in sorted((str(key) for key in slide.obsm), key=len, reverse=True):
        if name.startswith(f"{key}:"):
            return _of_obsm(slide, key, name.removeprefix(f"{key}:"))
    held = slide.obsm.get(IMPUTED)
    if isinstance(held, pd.DataFrame) and name in held:
        return _of_obsm(slide, IMPUTED, name)
    remedy = "run sagefm.tl.domains first" if name == DOMAIN else "choose one of them"
    imputed = " (nor an imputed one)" if isinstance(held, pd.DataFrame) else ""
    in_obsm = f"nor KEY:COLUMN of obsm ({few(slide.obsm, 6)})" if len(slide.obsm) else ""
    raise InputError(
        f"{name!r} is neither a column of obs ({few(slide.obs.columns, 6)}) nor a gene of the "
        f"slide{imputed} {in_obsm}".rstrip()
        + f"; {remedy}"
    )


def _numbers_or_categories(column: "pd.Series[Any]") -> "pd.Series[Any]":
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return column.astype("category")
    if pd.api.types.is_complex_dtype(column):
        raise InputError(f"{column.name}: holds complex numbers; draw their real part or size")
    return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)


def _gene(slide: "AnnData", name: str, layer: str | None) -> Values:
    matrix = slide.X if layer is None else slide.layers.get(layer)
    on_disk = counts_on_disk(slide) if layer is None else None
    if on_disk is not None:
        number = int(np.flatnonzero(slide.var_names == name)[0])
        return Values(pd.Series(on_disk.gene(number), index=slide.obs_names), name, "counts")
    if matrix is None:
        layers = few((key for key in slide.layers if key is not None), 6) or "none"
        raise InputError(f"{name}: the slide has no {layer or 'X'!r}; layers: {layers}")
    summed = np.asarray(matrix[:, np.flatnonzero(slide.var_names == name)].sum(axis=1)).ravel()
    known = summed[np.isfinite(summed)]
    unit = layer or ("counts" if (known == np.floor(known)).all() else "")
    return Values(pd.Series(summed, index=slide.obs_names), name, unit)


def _of_obsm(slide: "AnnData", key: str, column: str) -> Values:
    """Get a column of obsm by its name in a DataFrame, or by its number in a matrix."""
    held = slide.obsm[key]
    if isinstance(held, pd.DataFrame):
        if column not in held:
            raise InputError(f"obsm[{key!r}] has no column {column!r}, but {few(held.columns, 6)}")
        if key != IMPUTED:
            return Values(_numbers_or_categories(held[column]), f"{column} ({key})")
        unit = _UNITS.get(text(provenance(slide, "imputed").get("scale")), "")
        return Values(held[column].astype(np.float64), f"{column} (imputed)", unit)
    width = held.shape[1]
    if not column.isdecimal() or int(column) >= width:
        raise InputError(f"obsm[{key!r}] has no column {column!r}; give 0 to {width - 1}")
    numbers = held[:, [int(column)]]
    dense = numbers.toarray() if hasattr(numbers, "toarray") else np.asarray(numbers)
    values = pd.Series(dense.ravel().astype(np.float64), index=slide.obs_names)
    return Values(values, f"{key}, column {column}")
