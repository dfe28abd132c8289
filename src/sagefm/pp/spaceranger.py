"""Read Space Ranger output folders of all versions, and loose files from GEO."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.pp.barcodes import Places, places
from sagefm.pp.counts import Counts, sum_duplicates
from sagefm.pp.features import split_features
from sagefm.pp.positions import COORDINATES, read_positions
from sagefm.pp.samples import Sample, find_sample
from sagefm.pp.segmented import is_cell, read_cells
from sagefm.pp.tenx import read_factors, read_image, read_matrix

_POSITIONS = r"tissue_positions(?:_list)?\.(?:csv|tsv|txt|parquet)(?:\.gz)?"
_PACKED = r"(?:spatial|tissue_positions(?:_list)?)\.(?:\w+\.)?(?:gz|tgz|tar|zip|bz2|xz)"
_ON_ARRAY = ("in_tissue", "array_row", "array_col")
_FAINT = 0.1
"""Fraction of the counts of a usual spot below which a spot may lie outside the tissue."""


@dataclass(frozen=True)
class _Positions:
    """Where spots are: a table by barcode, its file, and their places if that is all there is."""

    table: pd.DataFrame
    file: str
    places: Places | None = None


def read_spaceranger(path: Path, notes: list[str]) -> tuple[AnnData, str]:
    """Read a Space Ranger folder, a matrix file in one, or one sample of a folder of loose files.

    Parameters
    ----------
    path
        The folder, the matrix, or ``folder/PREFIX``.
    notes
        Notes for the user are appended to it.

    Returns
    -------
    The slide (genes by symbol, without duplicates; coordinates, images and scale factors if
    available) and the name of its matrix.

    Raises
    ------
    InputError
        A file is missing or cannot be read, or files do not fit together.
    """
    sample = find_sample(path, notes)
    matrix, barcodes, var = read_matrix(sample.matrix, notes)
    matrix, var, others = _only_genes(matrix, var, barcodes, notes)
    positions = _positions(sample, barcodes, notes)
    rows, at = _match(barcodes, positions.table.index, positions.file, notes)
    obs = positions.table.iloc[at].set_axis(barcodes[rows])
    keep = _under_tissue(obs, sample.raw and not sample.cells, positions.file, notes)
    obs = obs[keep]
    raw = sum_duplicates(Counts(matrix[rows[keep]], var, sample.matrix.name))
    notes += [raw.note] if raw.note else []
    slide = AnnData(raw.matrix, obs=_whole(obs.drop(columns=[*COORDINATES])), var=raw.var)
    slide.obsm[_keys.SPATIAL] = obs[[*COORDINATES]].to_numpy(dtype=np.float64, copy=True)
    for key, features in others.items():
        slide.obsm[key] = features.iloc[rows[keep]]
    if positions.places is not None:
        slide.uns[_keys.PITCH] = positions.places.pitch_um
        notes += _faint(raw.matrix) if sample.raw else []
    elif library := _library(sample, notes):
        slide.uns[_keys.SPATIAL] = {sample.name: library}
    return slide, sample.matrix.name


def _positions(sample: Sample, barcodes: pd.Index, notes: list[str]) -> _Positions:
    """Find where the spots or cells of a matrix are."""
    if sample.cells or (len(barcodes) and is_cell(str(barcodes[0]))):
        file = sample.find(r"cell_segmentations\.(?:geo)?json(?:\.gz)?")
        if file is None:
            raise InputError(
                f"no cell_segmentations.geojson for {sample.matrix.name}: without it the cells "
                "have no coordinates; put it next to the matrix, or name the folder of the bins"
            )
        return _Positions(read_cells(file, notes), file.name)
    file = sample.find(_POSITIONS)
    if file is not None:
        return _Positions(read_positions(file), file.name)
    missing = (
        f"no tissue_positions file (.csv or .parquet) for {sample.matrix.name}: "
        "without it the spots have no coordinates"
    )
    if packed := sample.find(_PACKED):
        raise InputError(f"{missing}; unpack {packed.name}")
    try:
        found = places(barcodes)
    except InputError as error:
        remedy = "put the spatial folder next to the matrix"
        raise InputError(f"{missing}, and {error}; {remedy}") from error
    notes.append(found.note)
    table = found.table.rename(columns={"x": COORDINATES[0], "y": COORDINATES[1]})
    return _Positions(table, f"the list of {found.chip}", found)


def _whole(obs: pd.DataFrame) -> pd.DataFrame:
    """Convert places on the array to integers where they are."""
    whole = [
        column
        for column in _ON_ARRAY
        if column in obs
        and (obs[column] == obs[column].round()).all()
        and obs[column].abs().max() < 2**31
    ]
    return obs.astype(dict.fromkeys(whole, int))


def _faint(matrix: csr_matrix) -> list[str]:
    """Note the spots of a raw matrix that have so few counts that they may lie off the tissue."""
    per_spot = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    faint = int((per_spot < _FAINT * np.quantile(per_spot, 0.75)).sum())
    if not faint:
        return []
    return [
        f"{numbered(faint, 'spot')} with less than a tenth of the counts of a usual spot: perhaps "
        "outside the tissue; read the filtered matrix, or remove them"
    ]


def _only_genes(
    matrix: csr_matrix, var: pd.DataFrame, barcodes: pd.Index, notes: list[str]
) -> tuple[csr_matrix, pd.DataFrame, dict[str, pd.DataFrame]]:
    if "feature_types" in var and not (var["feature_types"] == "Gene Expression").any():
        raise InputError("the matrix has no features of type 'Gene Expression'; name another one")
    matrix, var, others, note = split_features(matrix, var, barcodes)
    notes += [note] if note else []
    return matrix, var, others


def _match(
    barcodes: pd.Index, positioned: pd.Index, file: str, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the barcodes that have a position: their rows in the matrix and in the positions."""
    endings = barcodes.str.extract(r"-(\d+)$")[0].dropna().unique()
    if len(endings) > 1:
        listed = [f"-{ending}" for ending in endings]
        raise InputError(
            f"several slides in one matrix (barcodes end in {few(listed, 8)}: spaceranger aggr); "
            "read each slide's own outs folder"
        )
    at = positioned.get_indexer(barcodes)
    if (at < 0).all():
        bare, bare_positioned = (
            index.str.replace(r"-\d+$", "", regex=True) for index in (barcodes, positioned)
        )
        if bare.is_unique and bare_positioned.is_unique:
            at = bare_positioned.get_indexer(bare)
            if (at >= 0).any():
                notes.append(f"barcodes are matched to {file} without their -1 ending")
    if (at < 0).all():
        raise InputError(
            f"none of the {len(barcodes):,} barcodes of the matrix (such as {few(barcodes, 1)}) "
            f"is in {file} (such as {few(positioned, 1)}); they are not of one sample"
        )
    if missing := int((at < 0).sum()):
        notes.append(
            f"{missing:,} of {len(barcodes):,} barcodes have no position in {file} and are left "
            f"out ({few(barcodes[at < 0])})"
        )
    rows = np.flatnonzero(at >= 0)
    return rows, at[rows].astype(np.int64)


def _under_tissue(obs: pd.DataFrame, raw: bool, file: str, notes: list[str]) -> NDArray[np.bool_]:
    """Leave out spots outside the tissue of a raw matrix; keep all spots of a filtered one."""
    inside = np.ones(len(obs), dtype=bool)
    if "in_tissue" in obs:
        inside = (obs["in_tissue"] == 1).to_numpy()
    elif raw:
        notes.append(
            f"{file} does not say which spots are under tissue: all spots of the raw matrix kept"
        )
        return inside
    outside = int((~inside).sum())
    if raw and not inside.any():
        raise InputError("the raw matrix has no spot under tissue (in_tissue is 0 for all)")
    if raw:
        notes.append(
            f"there is only the raw matrix: {numbered(outside, 'spot')} outside the tissue left out"
        )
        return inside
    if outside:
        notes.append(f"{numbered(outside, 'spot')} outside the tissue (in_tissue 0) kept")
    return np.ones(len(obs), dtype=bool)


def _library(sample: Sample, notes: list[str]) -> dict[str, Any]:
    """Read images and scale factors, as scanpy stores them in ``uns["spatial"]``."""
    images = {}
    for size in ("hires", "lowres"):
        file = sample.find(rf"tissue_{size}_image\.(?:png|jpe?g)(?:\.gz)?")
        image = None if file is None else read_image(file, notes)
        if image is not None:
            images[size] = image
    file = sample.find(r"scalefactors_json\.json(?:\.gz)?")
    factors = {} if file is None else read_factors(file, notes)
    return {"images": images, "scalefactors": factors} if images or factors else {}
