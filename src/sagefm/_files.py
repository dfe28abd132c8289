"""Writing a file so that a killed run leaves the old one or the new one, never half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sagefm._errors import InputError
from sagefm._keys import PROVENANCE

if TYPE_CHECKING:
    from anndata import AnnData

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such locks; then it is up to the user
    fcntl = None

_MANY = 4000
"""Columns of a table whose names HDF5 has room for in any case."""


def require_writable(path: str | Path) -> None:
    """Refuse a path that nothing can be written to, before any work is done for it.

    Raises
    ------
    InputError
        `path` is a folder, or lies where nothing can be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write, such as {path / 'out'}")
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError(f"{path}: cannot be written in {place}; choose another place")


def require_nothing_lost(slide: "AnnData", source: str | Path, target: str | Path) -> None:
    """Refuse to write a slide over the file it was read from, if reading left something out.

    Raises
    ------
    InputError
        `target` is `source`, and `slide` holds less than it.
    """
    source, target = Path(source), Path(target)
    lost = slide.uns[PROVENANCE]["read"]["lost"]
    if len(lost) and target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{source}: is not written over, for {lost[0]}; choose another OUT")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made where it is missing.

    Raises
    ------
    InputError
        Another process is at work in it, or it cannot be made.
    """
    path = Path(folder) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place"
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise InputError(
                    f"{folder}: process {file.read().strip() or 'unknown'} is at work in it; wait "
                    "for it, or choose another place"
                ) from error
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` if the block succeeds.

    Parameters
    ----------
    path
        The file to make or to replace. Its folder is made where it is missing.

    Yields
    ------
    A path in the same folder with the same suffix. It is removed if the block raises.

    Raises
    ------
    InputError
        The folder cannot be made or written to, or `path` is a folder.
    """
    path = Path(path)
    require_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        # mkstemp makes private files; the result gets the permissions any new file would get.
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_slide(slide: "AnnData", path: str | Path) -> None:
    """Write a slide as .h5ad, beside `path` first; its tables may have thousands of columns.

    Raises
    ------
    InputError
        As :func:`replacing`.
    """
    import h5py

    tables = (slide.obs, slide.var, *slide.obsm.values(), *slide.varm.values())
    settings = h5py.get_config()
    before = settings.track_order
    # HDF5 has room for more names than that if it tracks their order. anndata asks for it from
    # 5,001 columns on, but HDF5 needs it from about 4,090.
    settings.track_order = before or any(table.shape[1] > _MANY for table in tables)
    try:
        with replacing(path) as beside:
            slide.write_h5ad(beside)
    finally:
        settings.track_order = before
