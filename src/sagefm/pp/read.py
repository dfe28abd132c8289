"""Read a slide from a file or folder, check it, and log what was assumed or left out."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sagefm import _keys
from sagefm._errors import InputError, logger
from sagefm._progress import stage
from sagefm._text import few, numbered
from sagefm._uns import provenance, record, text, texts
from sagefm._writable import make_writable
from sagefm.pp.anndata_file import quiet
from sagefm.pp.axes import flags
from sagefm.pp.barcodes import fill_from_barcodes
from sagefm.pp.check import background, check, duplicate_barcodes, few_spots
from sagefm.pp.counts import Counts, find_coordinates, find_counts, sum_duplicates
from sagefm.pp.features import feature_types
from sagefm.pp.gene_forms import name_kind
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.modalities import describe_proteins
from sagefm.pp.mudata import is_mudata
from sagefm.pp.naming import name_genes
from sagefm.pp.opening import open_any, open_on_disk, stays_on_disk
from sagefm.pp.sections import find_slide_key, section_codes
from sagefm.pp.spatialdata import is_held
from sagefm.pp.tenx import unreadable

if TYPE_CHECKING:
    from mudata import MuData
    from spatialdata import SpatialData

_N_NEIGHBORS = 15
"""Size of the published neighborhood; slides with fewer spots are read with a note."""


def read(
    path: "str | os.PathLike[str] | SpatialData | MuData",
    *,
    layer: str | None = None,
    slide_key: str | None = None,
    table: str | None = None,
    region: str | None = None,
    backed: bool | None = False,
) -> AnnData:
    """Read a slide.

    What was summed, left out or assumed is logged by the logger ``sagefm`` and stored in
    ``uns["sagefm"]["read"]["told"]``.

    Parameters
    ----------
    path
        A Space Ranger ``outs`` folder (or the folder that has it), a Visium HD folder, one of its
        ``square_*um`` or its ``segmented_outputs``, a matrix file inside one; a folder of loose GEO
        files, where there are several samples as ``folder/PREFIX``; an ``.h5ad``, a ``.zarr`` or a
        ``.zarr.zip``; a SpatialData object or its folder (or ``folder/tables/TABLE``); a MuData
        object or an ``.h5mu``. A Visium v1 or HD matrix without its ``spatial`` folder has its
        places by its barcodes, in micrometers.
    layer
        Where the raw counts are: ``"X"``, ``"raw"`` or a key of ``layers``. The default is the
        first of ``X``, ``layers["counts"]`` and ``raw`` that has counts.
    slide_key
        ``obs`` column with the slide of each spot, if the object holds several. Several regions of
        a SpatialData are told apart by the column of its table that names them.
    table
        Which table of a SpatialData, if it has several.
    region
        Only this region of the table of a SpatialData.
    backed
        Whether the counts of an .h5ad or zarr stay on disk: then ``X`` is None, and
        :func:`sagefm.tl.embed`, :func:`sagefm.tl.impute`, :func:`sagefm.tl.domains` and
        :func:`sagefm.tl.annotate` read them some spots at a time, with the same results; other
        functions load them. None: if they would take more than 1 GB of memory.

    Returns
    -------
    Raw counts in ``X`` (CSR float32); genes by symbol if known, without duplicates,
    ``var["gene_ids"]`` with Ensembl ids if known; ``obsm["spatial"]`` (float64, x = pixel column,
    y = pixel row); image and scale factors in ``uns["spatial"]`` if available. Features that are
    not genes are in ``obsm``, such as ``obsm["antibody_capture"]`` (proteins, with the isotype
    controls), and so are other modalities of a MuData; spots outside the tissue are
    left out. All of it can be written as .h5ad.

    Raises
    ------
    InputError
        The slide does not exist, cannot be read, or has an error (see :func:`check`).
    """
    name = _name_of(path)
    stage("reading %s", name)
    notes: list[str] = []
    with _explaining(name):
        on_disk = stays_on_disk(path, backed)
        how = (layer, notes, table, region)
        slide, where, regions = open_on_disk(path, *how) if on_disk else open_any(path, *how[1:])
        slide_key = slide_key or regions or None
        if on_disk or not where:
            slide = _under_tissue(slide, notes)
        _name_spots(slide, slide_key, notes)
        if not on_disk:
            raw = _settle_genes(find_counts(slide, layer), notes)
            slide, where = _with_counts(slide, raw, notes), where or raw.where
        _fill_coordinates(slide, notes)
        key = find_slide_key(slide, slide_key)
        _judge(slide, key or "", notes)
        notes += describe_proteins(slide)
        renamed = dict(zip(slide.obs, range(slide.obs.shape[1]), strict=True))
        notes += make_writable(slide)
        key = str(slide.obs.columns[renamed[key]]) if key in renamed else key
        _record(slide, name, where, key, notes)
    for line in notes:
        logger.warning("%s: %s", Path(name).name or name, line)
    return slide


def open_slide(path: "str | os.PathLike[str] | SpatialData") -> AnnData:
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
    with _explaining(_name_of(path)):
        return open_any(path, []).slide


def _name_of(source: Any) -> str:
    """Name a slide in messages: its path, or what it is."""
    if is_held(source):
        return str(source.path or "SpatialData")
    if is_mudata(source):
        return "MuData"
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"{type(source).__name__}: is no path, SpatialData or MuData; name a slide"
        )
    return os.fspath(source)


@contextmanager
def _explaining(path: str) -> Iterator[None]:
    """Name the path in an error of the input, of the system or of memory."""
    try:
        if "\0" in path:
            raise InputError("is no path: it has a null byte; check it")
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        raise InputError(
            f"{path}: needs more memory than there is{why}; keep less of it"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); check its permissions") from error
    except Exception as error:  # what a damaged file makes of a slide has no limit
        raise InputError(f"{path}: {unreadable('', error)}") from error


def _under_tissue(slide: AnnData, notes: list[str]) -> AnnData:
    """Leave out spots outside the tissue, unless the slide was read before."""
    if provenance(slide, "read"):
        return slide
    column = background(slide.obs)
    if column is None:
        return slide
    inside = flags(slide.obs[column])
    if inside is None or inside.all():
        return slide
    if not inside.any():
        raise InputError(
            f"no spot is under tissue (obs['{column}'] is 0 for all); correct or delete that column"
        )
    outside = numbered(int((~inside).sum()), "spot")
    notes.append(f"{outside} outside the tissue (obs['{column}'] is 0) left out")
    with quiet():
        return slide[inside].copy()


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
    named, about_names = name_genes(found)
    notes += about_names
    if name_kind(named.var.index.tolist())[0] == "ensembl":
        notes.append("the gene names are Ensembl ids and no symbols are known")
    summed = sum_duplicates(named)
    notes += [summed.note] if summed.matrix is not named.matrix else []
    return summed


def _with_counts(slide: AnnData, found: Counts, notes: list[str]) -> AnnData:
    """Move counts and their genes to ``X`` and ``var``; keep everything that still fits."""
    if found.where != "X" and slide.X is not None:
        notes.append(f"X now has the counts of {found.where}; its earlier values are left out")
    if found.others and (features := feature_types(slide.var)) is not None:
        slide = slide[:, features[0]].copy()
    for kind, table in found.others.items():
        key = kind if kind not in slide.obsm else f"{kind}_counts"
        slide.obsm[key] = table
        notes.append(f"obsm['{key}'] has the counts of {numbered(table.shape[1], 'such feature')}")
    if found.matrix.shape == slide.shape and (
        found.where != "raw" or slide.raw.var_names.equals(slide.var_names)
    ):
        slide.X, slide.var = _copied(found), found.var
        return slide
    lost = [
        *(f"layers['{key}']" for key in slide.layers if key is not None),
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
    if _keys.SPATIAL in slide.obsm:
        return
    if not all(column in slide.obs for column in columns):
        return fill_from_barcodes(slide, notes)
    slide.obsm[_keys.SPATIAL] = slide.obs[columns].to_numpy(dtype=np.float64, copy=True)
    notes.append(f"coordinates are taken from obs: {few(columns)}")


def _judge(slide: AnnData, slide_key: str, notes: list[str]) -> None:
    """Raise the first error of a slide, and note its warnings and a small number of spots."""
    for finding in check(slide, slide_key=slide_key, n_neighbors=0, counts=slide.X is not None):
        if finding.level == "error":
            raise InputError(finding.message)
        notes += [finding.message] if finding.level == "warning" else []
    codes = section_codes(slide, slide_key)
    small = few_spots(slide, codes, slide_key, _N_NEIGHBORS)
    notes += [finding.message for finding in small]
    xy, note = find_coordinates(slide)
    notes += [note] if note else []
    stored = slide.obsm[_keys.SPATIAL]
    # A third coordinate that is the same everywhere stays.
    whole = isinstance(stored, np.ndarray) and stored.dtype.kind in "biuf"
    slide.obsm[_keys.SPATIAL] = np.asarray(stored, dtype=np.float64) if whole else xy


def _record(slide: AnnData, path: str, where: str, key: str | None, notes: list[str]) -> None:
    """Record the origin of a slide; that of the first reading if it was read before.

    Notes of earlier readings are kept, but not what they left out.
    """
    from sagefm import __version__

    before = provenance(slide, "read")
    if not isinstance(slide.uns.get(_keys.PROVENANCE, {}), Mapping):
        notes.append(f"uns['{_keys.PROVENANCE}'] is no record of sagefm and is left out")
    entry = {
        "source": text(before.get("source")) or str(Path(path).resolve()),
        "counts": text(before.get("counts")) or where,
        "slide_key": key or "",
        "n_spots": slide.n_obs,
        "told": list(dict.fromkeys([*texts(before.get("told")), *notes])),
        "lost": [line for line in notes if "left out" in line],
        "gene_names": known_gene_names().version,
        "version": __version__,
    }
    record(slide, "read", entry)
