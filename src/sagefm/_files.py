"""Write files so that a killed run leaves the complete old file or the complete new one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sagefm._errors import InputError
from sagefm._keys import PROVENANCE
from sagefm._progress import stage

if TYPE_CHECKING:
    from anndata import AnnData

_WIDE = 4000
"""Number of columns of a table above which HDF5 must track their order to store them."""


def require_writable(path: str | Path) -> None:
    """Raise an error if a path cannot be written to, before any work is done.

    Raises
    ------
    InputError
        `path` is a folder, or lies in a folder that cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write, such as {path / 'out'}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"{path}: cannot be written in {folder}; choose another place")


def require_nothing_lost(slide: "AnnData", source: str | Path, target: str | Path) -> None:
    """Raise an error if a slide that was read incompletely would overwrite its own file.

    Raises
    ------
    InputError
        `target` is `source`, and `slide` holds less than it.
    """
    source, target = Path(source), Path(target)
    lost = slide.uns[PROVENANCE]["read"]["lost"]
    if len(lost) and target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{source}: is not overwritten, because {lost[0]}; choose another OUT")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a folder against other processes; create it if it is missing.

    The lock is released if the process is killed.

    Raises
    ------
    InputError
        Another process has locked the folder, or it cannot be created.
    """
    path = Path(folder) / ".lock"
    lock = FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder}: process {_holder(path)} is working in it; wait for it, or choose another "
            "folder"
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        with suppress(OSError):  # on Windows nobody writes to a locked file
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _holder(lock: Path) -> str:
    """Get the id of the process that holds a lock, if known."""
    with suppress(OSError):
        return lock.read_text().strip() or "unknown"
    return "unknown"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary file next to `path`, and rename it to `path` if the block succeeds.

    Parameters
    ----------
    path
        The file to create or replace. Its folder is created if it is missing.

    Yields
    ------
    A path in the same folder with the same suffix; removed if the block raises.

    Raises
    ------
    InputError
        The folder cannot be created or written to, or `path` is a folder.
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
        # mkstemp creates private files; give the result the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_slide(slide: "AnnData", path: str | Path) -> None:
    """Write a slide as .h5ad with :func:`replacing`; its tables may have thousands of columns.

    Raises
    ------
    InputError
        As :func:`replacing`.
    """
    import h5py

    stage("writing %s", path)
    tables = (slide.obs, slide.var, *slide.obsm.values(), *slide.varm.values())
    settings = h5py.get_config()
    before = settings.track_order
    # HDF5 has room for more names if it tracks their order. anndata does so from 5,001 columns on,
    # but HDF5 needs it from about 4,090.
    settings.track_order = before or any(table.shape[1] > _WIDE for table in tables)
    try:
        with replacing(path) as beside:
            slide.write_h5ad(beside)
    finally:
        settings.track_order = before
