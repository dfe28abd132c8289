"""Open what holds a slide, by its content: nothing is changed or checked yet."""

from pathlib import Path
from typing import Any, NamedTuple

from anndata import AnnData

from sagefm._errors import InputError
from sagefm._spatialdata import find_table, folders, is_zarr
from sagefm._text import few
from sagefm.pp.anndata_file import read_h5ad, read_zarr
from sagefm.pp.backed import is_large, open_backed
from sagefm.pp.container import file_format, require_files
from sagefm.pp.mudata import is_mudata, open_mudata, read_mudata
from sagefm.pp.spaceranger import read_spaceranger
from sagefm.pp.spatialdata import is_held, open_held, open_stored

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


class Opened(NamedTuple):
    """A slide as it is stored, its matrix if that is a file, and the column of its regions."""

    slide: AnnData
    where: str = ""
    key: str = ""


def open_any(
    source: Any, notes: list[str], table: str | None = None, region: str | None = None
) -> Opened:
    """Read a slide without changes."""
    if is_held(source):
        slide, key = open_held(source, table, region, notes)
        return Opened(slide, key=key)
    if is_mudata(source):
        return Opened(open_mudata(source, notes))
    path = Path(source)
    if found := find_table(path, table):
        slide, key = open_stored(found, region, notes)
        return Opened(slide, key=key)
    if table is not None or region is not None:
        raise InputError("is no SpatialData; leave table and region out")
    return Opened(*_open_path(path, notes))


def _open_path(path: Path, notes: list[str]) -> tuple[AnnData, str]:
    """Read what is no SpatialData; also return the name of its matrix if that is a file."""
    name = path.name.lower()
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise InputError("is a pipe or a device; write its content to a file, and name that")
    if path.is_dir() and (name.endswith(".zarr") or is_zarr(path)):
        return read_zarr(_modality_of(path)), ""
    if not path.is_file() or name.endswith((".mtx", ".mtx.gz")):
        if name.endswith((".h5ad", ".zarr", ".zarr.zip", ".h5mu")):
            raise InputError("does not exist; check the path")
        return read_spaceranger(path, notes)
    # The content of a file decides, whatever it is called.
    match file_format(path):
        case "AnnData":
            return read_h5ad(path), ""
        case "MuData":
            return read_mudata(path, notes), ""
        case "zarr":
            return read_zarr(path), ""
        case "10x":
            return read_spaceranger(path, notes)
        case kind:
            return _of_another_kind(path, kind, notes), ""


def _of_another_kind(path: Path, kind: str, notes: list[str]) -> AnnData:
    """Say what a file is that is no slide; one that is damaged fails in its own way."""
    name = path.name.lower()
    for endings, what in _NOT_SLIDES.items():
        if name.endswith(endings):
            raise InputError(what)
    if kind in ("loom", "Seurat"):
        raise InputError(f"is a file of {kind}; write it as .h5ad")
    if kind == "gzip":
        raise InputError("is compressed; run gunzip on it and name what comes of it")
    if name.endswith(".zarr.zip"):
        return read_zarr(path)
    if name.endswith(".h5"):
        return read_spaceranger(path, notes)[0]
    if name.endswith(".h5ad"):
        return read_h5ad(path)
    raise InputError("is no slide; name a Space Ranger outs folder, an .h5ad or a .zarr")


def _modality_of(path: Path) -> Path:
    """Get the AnnData of a zarr folder; one of a MuData must be named."""
    require_files(path)
    if not (path / "obs").is_dir() and (modalities := folders(path / "mod")):
        names = few((entry.name for entry in modalities), 20)
        genes = min(modalities, key=lambda entry: "rna" not in entry.name.lower())
        raise InputError(
            f"is a MuData with the modalities {names}; name the one with the genes, such as {genes}"
        )
    return path


def stays_on_disk(source: Any, backed: bool | None) -> bool:
    """Decide whether counts stay on disk; ask the file where it is not said."""
    if backed is not None or is_held(source) or is_mudata(source):
        return bool(backed)
    path = Path(source)
    if not path.exists() or not (path.is_dir() or path.suffix == ".h5ad"):
        return False
    found = find_table(path) if path.is_dir() else None
    return is_large(path if found is None else found.path)


def open_on_disk(
    source: Any, layer: str | None, notes: list[str], table: str | None, region: str | None
) -> Opened:
    """Open a slide, and leave its counts on disk."""
    if is_held(source) or is_mudata(source):
        raise InputError("is in memory; leave backed out, or name a file")
    path, where = Path(source), list[str]()
    found = find_table(path, table)

    def opener(place: Path) -> AnnData:
        slide, group = open_backed(place, layer, notes)
        where.append(group)
        return slide

    if found is None:
        if not path.exists():
            raise InputError("does not exist; check the path")
        if not (is_zarr(path) if path.is_dir() else file_format(path) == "AnnData"):
            raise InputError("only an .h5ad or a .zarr can be left on disk; leave backed out")
        if table is not None or region is not None:
            raise InputError("is no SpatialData; leave table and region out")
        return Opened(opener(_modality_of(path) if path.is_dir() else path), where[0])
    slide, key = open_stored(found, region, notes, opener)
    return Opened(slide, where[0], key)
