"""Find the places of spots from their barcodes, where a slide came without its positions.

A Visium v1 barcode has the same place on every slide, and the name of a Visium HD bin is its place.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few

N_SPOTS = 4992
"""Spots of a Visium v1 array."""
_SPOTS_PER_ROW = 64
_PITCH_UM = 100.0
_NEARLY_ALL = 0.95
"""Fraction of the barcodes that must be known: other lists have none of them."""


@dataclass(frozen=True)
class Places:
    """Places of spots on their array.

    Attributes
    ----------
    table
        By barcode: ``array_row``, ``array_col``, and ``x`` and ``y`` in micrometers. Barcodes
        without a place are left out.
    pitch_um
        Distance of neighboring spots.
    chip
        The kind of slide, for messages.
    """

    table: pd.DataFrame
    pitch_um: float
    chip: str

    @property
    def note(self) -> str:
        """Describe the coordinates in one line."""
        return (
            f"no tissue_positions: the coordinates are from the barcodes of {self.chip}, "
            f"{self.pitch_um:g} µm pitch, in µm; they fit no image"
        )


def places(barcodes: pd.Index) -> Places:
    """Find the places of spots from their barcodes.

    Parameters
    ----------
    barcodes
        Names of spots: barcodes of Visium v1 or bins of Visium HD, which may have a prefix or
        suffix.

    Raises
    ------
    InputError
        They are of another kind, or of several slides.
    """
    names = barcodes.astype(str)
    bins = names.str.extract(r"(?<![a-zA-Z0-9])s_(\d{1,3})um_(\d{1,5})_(\d{1,5})(?!\d)")
    named = len(bins) > 0 and bins[0].notna().mean() >= _NEARLY_ALL
    found = _bins(bins) if named else _spots(names)
    table = found.table.set_axis(barcodes, axis=0).dropna()
    if table.duplicated(["array_row", "array_col"]).any():
        raise InputError("several spots have the same barcode; read each slide's own output")
    table = table.astype({"array_row": np.int64, "array_col": np.int64})
    return Places(table, found.pitch_um, found.chip)


def fill_from_barcodes(slide: AnnData, notes: list[str]) -> None:
    """Give a slide without coordinates the places of its barcodes; leave it as it is if unknown."""
    attributes = slide.uns.get("spatialdata_attrs")
    try:
        found = places(slide.obs_names)
    except InputError:
        if not isinstance(attributes, Mapping):
            return
        raise InputError(
            "no coordinates: those of a SpatialData are in its shapes "
            f"({few(np.ravel(attributes.get('region', '')))}); put their centers "
            "(spatialdata.get_centroids) into obsm['spatial'] of the table, and write it again"
        ) from None
    if len(found.table) < slide.n_obs:
        return
    slide.obsm[_keys.SPATIAL] = found.table[["x", "y"]].to_numpy(dtype=np.float64, copy=True)
    for column in (name for name in ("array_row", "array_col") if name not in slide.obs):
        slide.obs[column] = found.table[column].to_numpy()
    slide.uns[_keys.PITCH] = found.pitch_um
    notes.append(found.note)
    if slide.uns.pop(_keys.SPATIAL, None):
        notes.append("left out: uns['spatial'], because its images have other coordinates")


def _bins(bins: pd.DataFrame) -> Places:
    sizes = bins[0].dropna().unique()
    if len(sizes) > 1:
        raise InputError(f"bins of several sizes ({few(sizes)} µm) in one matrix; keep one")
    size = float(sizes[0])
    row, column = (bins[at].astype(np.float64) for at in (1, 2))
    table = pd.DataFrame({"array_row": row, "array_col": column, "x": column * size})
    return Places(table.assign(y=row * size), size, "Visium HD")


def _spots(names: pd.Index) -> Places:
    sequences = names.str.extract(r"(?<![ACGTN])([ACGT]{16})(?![ACGTN])")[0]
    at = _visium_v1().get_indexer(pd.Index(sequences))
    if not len(at) or (at >= 0).mean() < _NEARLY_ALL:
        raise InputError(
            f"the barcodes (such as {few(names, 1)}) are not those of Visium v1 or Visium HD, "
            "whose places are known (CytAssist slides have others, and single cells have no place)"
        )
    row: NDArray[np.float64] = np.where(at >= 0, at // _SPOTS_PER_ROW, np.nan)
    column = 2.0 * (at % _SPOTS_PER_ROW) + row % 2
    x, y = column * _PITCH_UM / 2, row * _PITCH_UM * np.sqrt(3) / 2
    table = pd.DataFrame({"array_row": row, "array_col": column, "x": x, "y": y})
    return Places(table, _PITCH_UM, "Visium v1")


@cache
def _visium_v1() -> pd.Index:
    """Read the barcodes of Visium v1, row by row of the array."""
    file = resources.files("sagefm.pp") / "visium_v1_barcodes.txt.gz"
    return pd.Index(gzip.decompress(file.read_bytes()).decode("ascii").split())
