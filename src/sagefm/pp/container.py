"""Look into HDF5 files, zarr folders and archives before anything is read from them.

A container may claim arrays of any size, link to other files, or hold itself.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sagefm._errors import InputError
from sagefm.pp.structure import require_finite_heaps
from sagefm.pp.tenx import unreadable

if TYPE_CHECKING:
    import h5py

_PLAUSIBLE = 2**30
"""Bytes that an array may have however little of it is stored."""
_COMPRESSION = 2000
"""Larger arrays have at most this many times the bytes that are stored: deflate reaches 1,032."""
_DEPTH = 60
_ZARR = (".zgroup", "zarr.json", ".zattrs", ".zmetadata")


def file_format(path: Path) -> str:
    """Find the format of a file from its content.

    Returns
    -------
    ``"AnnData"``, ``"MuData"``, ``"10x"``, ``"loom"``, ``"Seurat"``, ``"HDF5"`` (of another kind),
    ``"zarr"`` (zipped), ``"gzip"``, or nothing if it is another one.
    """
    import h5py

    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    if start == b"PK\x03\x04":
        return "zarr" if zarr_root(path) is not None else ""
    if not h5py.is_hdf5(path):
        return ""
    require_finite_heaps(path)
    try:
        with h5py.File(path, "r") as file:
            return _hdf5_format(file)
    except Exception as error:  # a damaged file raises nearly anything
        raise InputError(unreadable("", error)) from error


def _hdf5_format(file: "h5py.File") -> str:
    import h5py

    names = set(file)
    kind = file.attrs.get("encoding-type")
    if kind == "MuData" or (kind is None and "mod" in names):
        return "MuData"
    if kind == "anndata" or {"obs", "var"} <= names or "X" in names:
        return "AnnData"
    if "assays" in names:
        return "Seurat"
    if {"row_attrs", "col_attrs"} <= names:
        return "loom"
    groups = (file.get(name) for name in names)
    tenx = any(isinstance(group, h5py.Group) and "barcodes" in group for group in groups)
    return "10x" if tenx else "HDF5"


def zarr_root(archive: Path) -> str | None:
    """Find the zarr group in a zip archive: its root, or the one folder in it."""
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    folders = {name.split("/")[0] for name in names}
    for root in ("", f"{folders.pop()}/" if len(folders) == 1 else ""):
        if any(root + name in names for name in _ZARR):
            return root.rstrip("/")
    return None


def survey_h5(path: Path, *, in_memory: bool = True) -> None:
    """Raise an error if an HDF5 file is not whole by itself, or claims more than it can have.

    Parameters
    ----------
    path
        The file.
    in_memory
        Whether all of it is to be read at once.

    Raises
    ------
    InputError
        It links to other files, holds a loop, or an array that cannot be in it or in memory.
    """
    import h5py

    with h5py.File(path, "r") as file:
        arrays = list(_arrays_of(file, (), set()))
    _require_plausible(arrays)
    if in_memory:
        _require_fitting(arrays)


def _arrays_of(
    group: "h5py.Group", above: tuple[int, ...], done: set[int]
) -> Iterator[tuple[str, int, int]]:
    """Give each array of an HDF5 group: its name, the bytes it claims and those that are stored."""
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in above:
        raise InputError(f"{group.name} holds itself; write the file again")
    if len(above) > _DEPTH:
        raise InputError(f"{group.name[:80]}… lies {_DEPTH} groups deep; write the file again")
    if address in done:
        return
    done.add(address)
    for name in group:
        where = f"{group.name.rstrip('/')}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{where} is a link to another file ({link.filename}), which is not followed; "
                "write the slide into one file"
            )
        item = group.get(name)
        if item is None:
            raise InputError(f"{where} is a link to nothing; write the file again")
        if isinstance(item, h5py.Group):
            yield from _arrays_of(item, (*above, address), done)
        elif isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise InputError(
                    f"{where} has its values in another file, which is not read; "
                    "write the slide into one file"
                )
            shapes = [item.shape or (), item.chunks or ()]
            claimed = max(_size(shape, item.dtype.itemsize) for shape in shapes)
            yield where, claimed, item.id.get_storage_size()


def _size(shape: tuple[int, ...], itemsize: int) -> int:
    size = itemsize
    for length in shape:
        size *= int(length)
    return size


def survey_zarr(root: Any, path: Path, *, in_memory: bool = True) -> None:
    """Raise an error if a zarr group links to other folders, or claims more than it can have.

    Parameters
    ----------
    root
        The group, or its folder.
    path
        The folder or archive.
    in_memory
        Whether all of it is to be read at once.

    Raises
    ------
    InputError
        As said, or an array is encoded in a way that could run code.
    """
    import zarr

    stored = _files_size(path)
    group = root if isinstance(root, zarr.Group) else zarr.open_group(root, mode="r")
    arrays = []
    for name, item in group.members(max_depth=None):
        if not isinstance(item, zarr.Array):
            continue
        if "pickle" in str(item.metadata.to_dict()).lower():
            raise InputError(f"{name} is pickled, which could run code; write the slide again")
        itemsize = getattr(np.dtype(item.dtype), "itemsize", 8)
        claimed = max(_size(shape, itemsize) for shape in (item.shape, item.chunks))
        arrays.append((name, claimed, stored))
    _require_plausible(arrays)
    if in_memory:
        _require_fitting(arrays)


def require_files(folder: Path) -> None:
    """Raise an error for a pipe, a device or a broken link in a folder: reading may never end.

    Raises
    ------
    InputError
        As said.
    """
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            require_files(Path(entry.path))
        elif not (entry.is_file() or entry.is_dir()):
            raise InputError(f"holds {entry.path}, which is no file; remove it or copy it again")


def require_stored(name: str, array: Any, folder: Path) -> None:
    """Raise an error if a zarr array that is read in parts claims more than its folder can have.

    Raises
    ------
    InputError
        As said, or a link leaves the folder.
    """
    itemsize = getattr(np.dtype(array.dtype), "itemsize", 8)
    _require_plausible([(name, _size(array.shape, itemsize), _files_size(folder))])


def _files_size(path: Path) -> int:
    """Sum the files of a folder; a link that leaves it is an error."""
    if path.is_file():
        return path.stat().st_size
    root = path.resolve()
    size = 0
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            entry = Path(folder) / name
            if entry.is_symlink() and root not in entry.resolve().parents:
                raise InputError(
                    f"{entry.relative_to(root)} is a link to another place ({entry.readlink()}), "
                    "which is not followed; copy the files into the folder"
                )
            size += entry.stat().st_size if entry.is_file() else 0
    return size


def _require_plausible(arrays: list[tuple[str, int, int]]) -> None:
    for name, claimed, stored in arrays:
        if claimed > _PLAUSIBLE and claimed > _COMPRESSION * stored:
            raise InputError(
                f"{name} claims {_gigabytes(claimed)}, of which {stored:,} bytes are stored; it is "
                "damaged: copy it again"
            )


def _require_fitting(arrays: list[tuple[str, int, int]]) -> None:
    total, memory = sum(claimed for _, claimed, _ in arrays), _memory()
    if 2 * total > memory:
        largest = max(arrays, key=lambda array: array[1])[0]
        raise InputError(
            f"needs about {_gigabytes(2 * total)} of memory (most of it for {largest}), and there "
            f"are {_gigabytes(memory)}; keep fewer layers, or use another machine"
        )


def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 2**63


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
