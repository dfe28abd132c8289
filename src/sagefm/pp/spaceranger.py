"""Read Space Ranger output folders of all versions, and loose files from GEO."""

import re
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
from sagefm.pp.counts import Counts, sum_duplicates
from sagefm.pp.features import split_features
from sagefm.pp.tenx import read_factors, read_image, read_matrix, read_positions

_MATRIX = re.compile(
    r"(?P<prefix>.*?)(?:(?P<kind>filtered|raw)_(?:feature|gene)_bc_matri(?:x|ces)(?:_h5)?(?:\.h5)?"
    r"|matrix\.mtx(?:\.gz)?)"
)
_POSITIONS = r"tissue_positions(?:_list)?\.(?:csv|tsv|txt|parquet)(?:\.gz)?"
_BIN = re.compile(r"square_(\d+)um")
_USUAL_BIN = 16
"""Micrometers of the Visium HD bins to read if a folder has several: closest to a cell."""


@dataclass(frozen=True)
class _Sample:
    """The matrix of one slide, the folder of its other files, and the file prefixes used there."""

    matrix: Path
    folder: Path
    prefix: str
    prefixes: tuple[str, ...]

    @property
    def name(self) -> str:
        folder = self.folder.resolve()
        name = self.prefix.rstrip("_.-")
        return name or (folder.parent.name if folder.name == "outs" else folder.name)

    @property
    def raw(self) -> bool:
        """Whether the matrix has all spots of the array, not only those under tissue."""
        names = self.matrix.name, self.matrix.parent.name
        matches = [_MATRIX.fullmatch(name) for name in names]
        return any(match is not None and match["kind"] == "raw" for match in matches)

    def find(self, pattern: str) -> Path | None:
        """Find a file that belongs to the matrix, next to it or in its ``spatial`` folder."""
        for place in (f"{self.prefix}spatial", "spatial", "."):
            folder = self.folder / place
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            prefixed = bool(self.prefix) and place.startswith(self.prefix)
            matches = [re.fullmatch(f"(?P<prefix>.*?){pattern}", entry.name) for entry in entries]
            mine = [
                match for match in matches if match and (prefixed or self._owns(match["prefix"]))
            ]
            if mine:
                best = min(mine, key=lambda match: match["prefix"] != self.prefix)
                return folder / best.string
        return None

    def _owns(self, prefix: str) -> bool:
        """Check whether a file belongs to this sample: the longest matching prefix decides."""
        if len(self.prefixes) < 2:
            return True
        matching = [other for other in self.prefixes if prefix.startswith(other)]
        return max(matching, key=len, default=None) == self.prefix


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
    sample = _sample(_locate(path, notes))
    positions_file = sample.find(_POSITIONS)
    if positions_file is None:
        raise InputError(_no_positions(sample))
    matrix, barcodes, var = read_matrix(sample.matrix)
    matrix, var = _only_genes(matrix, var, notes)
    positions = read_positions(positions_file)
    rows, at = _match(barcodes, positions.index, positions_file.name, notes)
    obs = positions.iloc[at].set_axis(barcodes[rows])
    keep = _under_tissue(obs, sample.raw, positions_file.name, notes)
    obs = obs[keep]
    raw = sum_duplicates(Counts(matrix[rows[keep]], var, sample.matrix.name))
    notes += [raw.note] if raw.note else []
    xy = obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    slide = AnnData(raw.matrix, obs=obs.iloc[:, :-2].astype(int), var=raw.var)
    slide.obsm[_keys.SPATIAL] = xy
    if library := _library(sample, notes):
        slide.uns[_keys.SPATIAL] = {sample.name: library}
    return slide, sample.matrix.name


def _locate(path: Path, notes: list[str]) -> Path:
    """Find the count matrix of a path."""
    if path.is_file():
        return path
    if path.is_dir():
        for place in (path / "binned_outputs", path / "outs" / "binned_outputs", path):
            if bins := _bins(place):
                chosen = _choose_bin(bins, notes)
                return _choose(chosen, _samples(chosen))
        for place in (path, path / "outs"):
            if samples := _samples(place):
                return _choose(place, samples)
        raise InputError(_no_matrix(path))
    samples = _samples(path.parent)
    name = path.name.rstrip("_.-")
    named = {prefix: file for prefix, file in samples.items() if prefix.startswith(name)}
    exact = {prefix: file for prefix, file in named.items() if prefix.rstrip("_.-") == name}
    if named:
        return _choose(path.parent, exact or named)
    remedy = f"its folder has {_listed(samples)}" if any(samples) else "check the path"
    raise InputError(f"does not exist; {remedy}")


def _samples(folder: Path) -> dict[str, Path]:
    """Find the matrix of every sample (file prefix) in a folder: filtered before raw, h5 first."""
    ranked: dict[str, list[tuple[bool, bool, Path]]] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _MATRIX.fullmatch(entry.name)
        matrix = _mtx_in(entry) if entry.is_dir() else entry
        if match and matrix:
            rank = match["kind"] == "raw", matrix.suffix != ".h5", matrix
            ranked.setdefault(match["prefix"], []).append(rank)
    by_name = sorted(ranked, key=lambda prefix: prefix.rstrip("_.-"))
    return {prefix: min(ranked[prefix])[-1] for prefix in by_name}


def _mtx_in(folder: Path) -> Path | None:
    names = ("matrix.mtx.gz", "matrix.mtx")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _choose(folder: Path, samples: dict[str, Path]) -> Path:
    if len(samples) > 1 and "" not in samples:
        first = next(iter(samples)).rstrip("_.-")
        raise InputError(
            f"holds {len(samples)} samples ({_listed(samples)}); name one, such as {folder / first}"
        )
    return samples.get("") or next(iter(samples.values()))


def _listed(samples: dict[str, Path]) -> str:
    return few((prefix.rstrip("_.-") for prefix in samples), 20)


def _bins(folder: Path) -> dict[int, Path]:
    """Find the Visium HD bins in a folder: their size in micrometers and their folder."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    sizes = [(_BIN.fullmatch(entry.name), entry) for entry in entries]
    return {int(match[1]): entry for match, entry in sizes if match and _samples(entry)}


def _choose_bin(bins: dict[int, Path], notes: list[str]) -> Path:
    size = _USUAL_BIN if _USUAL_BIN in bins else max(bins)
    others = [f"{other} µm ({bins[other]})" for other in sorted(bins) if other != size]
    if others:
        notes.append(f"the bins of {size} µm are read; for others name their folder: {few(others)}")
    return bins[size]


def _no_matrix(path: Path) -> str:
    if not any(path.iterdir()):
        return "the folder is empty; name a Space Ranger outs folder, an .h5ad or a .zarr"
    slides = [entry for entry in sorted(path.iterdir()) if _is_slide(entry)]
    if slides:
        listed = few((entry.name for entry in slides), 5)
        return f"a folder of {numbered(len(slides), 'slide')} ({listed}); name one: {slides[0]}"
    return (
        "no count matrix in the folder (filtered_feature_bc_matrix.h5, or a folder of that name "
        "with matrix.mtx); name the Space Ranger outs folder, or unpack the matrix into it"
    )


def _is_slide(path: Path) -> bool:
    if path.name.startswith("."):
        return False  # a temporary file of a killed run
    if path.name.endswith((".h5ad", ".zarr")):
        return True
    places = path, path / "outs"
    return any(_samples(place) or _bins(place / "binned_outputs") for place in places)


def _sample(matrix: Path) -> _Sample:
    """Find the folder and prefix of the files that belong to a matrix."""
    folder, named = matrix.parent, matrix.name
    if not matrix.name.endswith(".h5") and _MATRIX.fullmatch(folder.name):
        folder, named = folder.parent, folder.name  # the mtx files have a folder of their own
    match = _MATRIX.fullmatch(named)
    prefix = match["prefix"] if match else ""
    return _Sample(matrix, folder, prefix, tuple({*_samples(folder), prefix}))


def _no_positions(sample: _Sample) -> str:
    packed = sample.find(r"spatial\.(?:tar\.gz|tgz|tar|zip)")
    remedy = f"unpack {packed.name}" if packed else "put the spatial folder next to the matrix"
    return (
        f"no tissue_positions file (.csv or .parquet) for {sample.matrix.name}: "
        f"without it the spots have no coordinates; {remedy}"
    )


def _only_genes(
    matrix: csr_matrix, var: pd.DataFrame, notes: list[str]
) -> tuple[csr_matrix, pd.DataFrame]:
    if "feature_types" in var and not (var["feature_types"] == "Gene Expression").any():
        raise InputError("the matrix has no features of type 'Gene Expression'; name another one")
    matrix, var, _, note = split_features(matrix, var, pd.RangeIndex(matrix.shape[0]))
    notes += [note] if note else []
    return matrix, var


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


def _library(sample: _Sample, notes: list[str]) -> dict[str, Any]:
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
