"""Read a slide from a file or folder, check it, and log what was assumed or left out."""

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._progress import stage
from sagefm._text import few
from sagefm.pp.check import check, duplicate_barcodes, few_spots, name_kind
from sagefm.pp.counts import (
    Counts,
    find_counts,
    find_slide_key,
    section_codes,
    sum_duplicates,
)
from sagefm.pp.spaceranger import read_spaceranger
from sagefm.pp.tenx import unreadable

_N_NEIGHBORS = 15
"""Size of the published neighborhood; slides with fewer spots are read with a note."""
_ID_COLUMNS = (
    *("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensembl_gene_id"),
    *("ensemblid", "feature_id", "gene_ensembl"),
)
"""Usual names of a column of Ensembl ids, in lower case."""
_SYMBOL_COLUMNS = (
    *("gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "symbols"),
    *("feature_name", "hgnc_symbol", "genename", "gene"),
)
"""Usual names of a column of gene symbols, in lower case."""
_ZARR = (".zgroup", "zarr.json", ".zattrs", ".zmetadata")
_NOT_SLIDES = {
    (".rds", ".rdata", ".rda", ".robj", ".h5seurat"): (
        "is an R object; write it as .h5ad from R (anndataR or zellkonverter)"
    ),
    (".tar.gz", ".tgz", ".tar", ".zip", ".tar.bz2", ".7z", ".rar"): (
        "is an archive; unpack it and name the folder"
    ),
    (".h5ad.gz",): "is compressed; run gunzip on it and name the .h5ad",
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".ndpi", ".jp2", ".btf"): (
        "is an image; name the Space Ranger outs folder it belongs to"
    ),
}


def read(
    path: str | os.PathLike[str], *, layer: str | None = None, slide_key: str | None = None
) -> AnnData:
    """Read a slide.

    What was summed, left out or assumed is logged by the logger ``sagefm`` and stored in
    ``uns["sagefm"]["read"]["told"]``.

    Parameters
    ----------
    path
        A Space Ranger ``outs`` folder (or the folder that has it), a Visium HD folder or one of its
        ``square_*um``, a matrix file inside one; a folder of loose GEO files, where there are
        several samples as ``folder/PREFIX``; an ``.h5ad``, a ``.zarr`` or a ``.zarr.zip``.
    layer
        Where the raw counts are: ``"X"``, ``"raw"`` or a key of ``layers``. The default is the
        first of ``X``, ``layers["counts"]`` and ``raw`` that has counts.
    slide_key
        ``obs`` column with the slide of each spot, if the object holds several.

    Returns
    -------
    Raw counts in ``X`` (CSR float32); genes by symbol if known, without duplicates,
    ``var["gene_ids"]`` with Ensembl ids if known; ``obsm["spatial"]`` (float64, x = pixel column,
    y = pixel row); image and scale factors in ``uns["spatial"]`` if available.

    Raises
    ------
    InputError
        The slide does not exist, cannot be read, or has an error (see :func:`check`).
    """
    path = Path(path)
    stage("reading %s", path)
    notes: list[str] = []
    try:
        slide, where = _open(path, notes)
        _name_spots(slide, slide_key, notes)
        raw = _settle_genes(find_counts(slide, layer), notes)
        slide = _with_counts(slide, raw, notes)
        _fill_coordinates(slide, notes)
        key = find_slide_key(slide, slide_key)
        _judge(slide, key, notes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); check its permissions") from error
    _record(slide, path, where or raw.where, key, notes)
    for line in notes:
        logger.warning("%s: %s", path.name or path, line)
    return slide


def open_slide(path: str | os.PathLike[str]) -> AnnData:
    """Open a slide without changes or checks, for :func:`sagefm.pp.check`.

    Parameters
    ----------
    path
        As for :func:`read`.

    Raises
    ------
    InputError
        The slide does not exist or cannot be opened.
    """
    path = Path(path)
    try:
        return _open(path, [])[0]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _open(path: Path, notes: list[str]) -> tuple[AnnData, str]:
    """Read a slide without changes; also return the name of its matrix if that is a file."""
    name = path.name.lower()
    if path.is_dir() and (name.endswith(".zarr") or any((path / file).exists() for file in _ZARR)):
        return _quietly(anndata.read_zarr, _table_of(path)), ""
    if name.endswith((".h5ad", ".zarr", ".zarr.zip")):
        if not path.exists():
            raise InputError("does not exist; check the path")
        if name.endswith(".zarr.zip"):
            return _read_zarr_zip(path), ""
        return _quietly(anndata.read_h5ad, path), ""
    if path.is_file() and not name.endswith((".h5", ".mtx", ".mtx.gz")):
        verdicts = [what for endings, what in _NOT_SLIDES.items() if name.endswith(endings)]
        usual = "is no slide; name a Space Ranger outs folder, an .h5ad or a .zarr"
        raise InputError((verdicts or [usual])[0])
    return read_spaceranger(path, notes)


def _quietly(reader: Callable[[Path], Any], path: Path) -> AnnData:
    """Read with anndata; convert any failure to an InputError."""
    try:
        with warnings.catch_warnings():
            # Duplicates are handled here, and files of older versions are supported.
            warnings.filterwarnings("ignore", message=r"(Variable|Observation) names are not uniq")
            warnings.filterwarnings("ignore", category=anndata.OldFormatWarning)
            slide = reader(path)
    except MemoryError:
        raise
    except Exception as error:  # anndata, h5py and zarr raise nearly anything
        raise InputError(unreadable("", error)) from error
    if not isinstance(slide, AnnData):
        raise InputError("holds no AnnData; name an .h5ad, a .zarr or a Space Ranger outs folder")
    return slide


def _read_zarr_zip(path: Path) -> AnnData:
    from zarr.storage import ZipStore

    def reader(path: Path) -> AnnData:
        with ZipStore(path, mode="r") as store:
            return anndata.read_zarr(store)

    return _quietly(reader, path)


def _table_of(path: Path) -> Path:
    """Find the AnnData in a zarr folder: the folder, or the table of a SpatialData folder."""
    folder = path / "tables"
    tables = (
        [entry for entry in sorted(folder.iterdir()) if entry.is_dir()] if folder.is_dir() else []
    )
    if len(tables) > 1:
        names = few((table.name for table in tables), 20)
        raise InputError(f"holds {len(tables)} tables ({names}); name one, such as {tables[0]}")
    return tables[0] if tables else path


def _name_spots(slide: AnnData, slide_key: str | None, notes: list[str]) -> None:
    """Make names of spots unique if slides share barcodes."""
    names = slide.obs_names
    if names.is_unique:
        return
    key = find_slide_key(slide, slide_key)
    if key is None:
        raise InputError(duplicate_barcodes(names))
    section_codes(slide, key)  # raises an error if a value is missing
    unique = slide.obs[key].astype(str).to_numpy(dtype=object) + "_" + names.to_numpy(dtype=object)
    if len(repeated := pd.Index(unique[pd.Index(unique).duplicated()]).unique()):
        raise InputError(
            f"{len(repeated):,} barcodes are duplicated within a slide of obs['{key}'] "
            f"({few(repeated)}); give each spot its own name"
        )
    slide.obs_names = unique
    notes.append(f"slides share barcodes: the spots are named by obs['{key}'] too ({unique[0]})")


def _settle_genes(found: Counts, notes: list[str]) -> Counts:
    """Name genes by symbol if known, keep Ensembl ids, and sum duplicates."""
    notes += [found.note] if found.note else []
    var = found.var.copy()
    var.index = _plain(var.index).rename(None)
    kind, _ = name_kind(var.index)
    ids = _column_of(var, _ID_COLUMNS, ensembl=True)
    if kind.startswith("ensembl"):
        symbols = _column_of(var, _SYMBOL_COLUMNS, ensembl=False)
        if symbols is None:
            notes.append("the gene names are Ensembl ids and no symbols are known")
        else:
            var[_keys.GENE_IDS] = var.index.to_numpy()
            named = _plain(var[symbols])
            var.index = named.where(named != "", var.index)
            notes.append(f"genes are named by var['{symbols}'], Ensembl ids are in var['gene_ids']")
    elif ids is not None and ids != _keys.GENE_IDS:
        var[_keys.GENE_IDS] = _plain(var[ids])
    if _keys.GENE_IDS in var:
        var[_keys.GENE_IDS] = _plain(var[_keys.GENE_IDS])
    summed = sum_duplicates(replace(found, var=var))
    notes += [summed.note] if summed.matrix is not found.matrix else []
    return summed


def _plain(values: Iterable[Any]) -> pd.Index:
    """Convert names to plain strings, empty if missing."""
    return pd.Index(["" if pd.isna(value) else str(value) for value in values], dtype=object)


def _column_of(var: pd.DataFrame, names: tuple[str, ...], *, ensembl: bool) -> str | None:
    """Find a column by its usual names that has (or does not have) Ensembl ids."""
    by_name = {str(column).lower(): column for column in reversed(var.columns.tolist())}
    for column in (by_name[name] for name in names if name in by_name):
        if name_kind(_plain(var[column]))[0].startswith("ensembl") is ensembl:
            return str(column)
    return None


def _with_counts(slide: AnnData, found: Counts, notes: list[str]) -> AnnData:
    """Move counts and their genes to ``X`` and ``var``; keep everything that still fits."""
    if found.where != "X" and slide.X is not None:
        notes.append(f"X now has the counts of {found.where}; its earlier values are left out")
    if found.matrix.shape == slide.shape and (
        found.where != "raw" or slide.raw.var_names.equals(slide.var_names)
    ):
        slide.X, slide.var = _copied(found), found.var
        return slide
    lost = [
        *(f"layers['{key}']" for key in slide.layers),
        *(f"varm['{key}']" for key in slide.varm),
        *(f"varp['{key}']" for key in slide.varp),
        *(f"var['{key}']" for key in slide.var if key not in found.var),
        *(["raw"] if slide.raw is not None else []),
    ]
    if lost:
        notes.append(f"the genes are no longer those of the file, left out: {few(lost, 20)}")
    kept = {name: dict(getattr(slide, name)) for name in ("obsm", "obsp", "uns")}
    return AnnData(_copied(found), obs=slide.obs, var=found.var, **kept)


def _copied(found: Counts) -> csr_matrix:
    """Copy counts of a layer, so that changes of X do not change the layer."""
    return found.matrix if found.where == "X" else found.matrix.copy()


def _fill_coordinates(slide: AnnData, notes: list[str]) -> None:
    columns = ["pxl_col_in_fullres", "pxl_row_in_fullres"]
    if _keys.SPATIAL in slide.obsm or not all(column in slide.obs for column in columns):
        return
    slide.obsm[_keys.SPATIAL] = slide.obs[columns].to_numpy(dtype=np.float64)
    notes.append(f"coordinates are taken from obs: {few(columns)}")


def _judge(slide: AnnData, slide_key: str | None, notes: list[str]) -> None:
    """Raise the first error of a slide, and note its warnings and a small number of spots."""
    for finding in check(slide, slide_key=slide_key, n_neighbors=0):
        if finding.level == "error":
            raise InputError(finding.message)
        notes += [finding.message] if finding.level == "warning" else []
    codes = section_codes(slide, slide_key)
    small = few_spots(slide, codes, slide_key, _N_NEIGHBORS)
    notes += [finding.message for finding in small]
    xy = slide.obsm[_keys.SPATIAL]
    slide.obsm[_keys.SPATIAL] = np.asarray(xy, dtype=np.float64)


def _record(slide: AnnData, path: Path, where: str, key: str | None, notes: list[str]) -> None:
    """Record the origin of a slide; that of the first reading if it was read before.

    Notes of earlier readings are kept, but not what they left out.
    """
    from sagefm import __version__

    entries = slide.uns.get(_keys.PROVENANCE, {})
    before = entries.get("read", {})
    entry = {
        "source": before.get("source", str(path.resolve())),
        "counts": before.get("counts", where),
        "slide_key": key or "",
        "told": list(dict.fromkeys([*before.get("told", []), *notes])),
        "lost": [line for line in notes if "left out" in line],
        "version": __version__,
    }
    slide.uns[_keys.PROVENANCE] = {**entries, "read": entry}
