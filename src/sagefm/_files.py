"""Write files so that a killed run leaves the complete old file or the complete new one."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sagefm._errors import InputError, logger
from sagefm._hdf5 import recorded, write_h5ad
from sagefm._owner import is_own, mark
from sagefm._progress import stage
from sagefm._spatialdata import TableFolder, find_table, write_results
from sagefm._strays import is_stray, temporary_name
from sagefm._uns import provenance, texts

if TYPE_CHECKING:
    from anndata import AnnData

LOCK = ".lock"
"""Name of the file in a folder by which a process locks it."""
_WIDE = 4000
"""Number of columns of a table above which HDF5 must track their order to store them."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Convert errors of the system to InputError.

    Raises
    ------
    InputError
        `path` cannot be written.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and "embedded null" not in str(error):
            raise  # not about the name of a file
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        full = getattr(error, "errno", None) in _FULL
        remedy = "free some space, or choose another place" if full else "choose another place"
        name = str(path).replace("\0", "\\0")
        raise InputError(f"{name}: cannot be written ({reason}); {remedy}") from error


def require_writable(path: str | Path) -> None:
    """Raise an error if a path cannot be written to, before any work is done.

    Raises
    ------
    InputError
        `path` is a folder or no file, has no valid name, or lies in a folder that cannot be
        written to.
    """
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name the file to write, such as {path / 'out'}")
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # raises if the name is too long
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no file but a device or a pipe; name a file")
        parents = Path(os.path.realpath(path)).parents
        folder = next(parent for parent in parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise InputError(f"{path}: cannot be written in {folder}; choose another place")


def require_result(path: str | Path) -> None:
    """Raise an error if a slide cannot be written to a path, before any work is done.

    Raises
    ------
    InputError
        As :func:`require_writable`; or the path is a SpatialData that cannot be written to, or has
        several tables.
    """
    found = _table_at(path)
    if found is None:
        require_writable(path)
    elif not all(os.access(place, os.W_OK | os.X_OK) for place in (found.root, found.path.parent)):
        raise InputError(f"{path}: cannot be written to; choose another place")


def _table_at(path: str | Path) -> TableFolder | None:
    """Find the table that a path names, if it is a SpatialData."""
    try:
        return find_table(Path(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def require_free(*paths: str | Path | None, overwrite: bool) -> None:
    """Raise an error if something would be overwritten, before any work is done.

    Parameters
    ----------
    paths
        Files or folders to write; None is skipped. What is empty is free, and so is an earlier
        result of the same command for the same slides.
    overwrite
        Whether files may be replaced, and folders may hold other things.

    Raises
    ------
    InputError
        A path is not free.
    """
    for path in (Path(path) for path in paths if path is not None):
        with writing(path):
            there = any(path.iterdir()) if path.is_dir() else _has_content(path)
        if there and not overwrite and not is_own(path):
            what = "holds files already" if path.is_dir() else "exists already"
            raise InputError(f"{path}: {what}; choose another place, or add --overwrite")


def require_own(
    slide: "AnnData", source: str | Path, target: str | Path, *, overwrite: bool
) -> None:
    """Raise an error if a result would overwrite another slide, or counts that were left out.

    A file is overwritten without asking if it is the slide itself, or was made from it. Of a
    SpatialData only results are overwritten.

    Parameters
    ----------
    slide
        A slide that was read.
    source
        Where it was read from.
    target
        The file to write.
    overwrite
        Whether `target` may be replaced if it was made from another slide.

    Raises
    ------
    InputError
        `target` is not of this slide, or is `source` and `slide` holds less than it.
    """
    source, target = Path(source), Path(target)
    if not _has_content(target):
        return
    if found := _table_at(target):
        if not overwrite and found.root.resolve() not in (
            source.resolve(),
            *source.resolve().parents,
        ):
            raise InputError(_foreign(source, target))
        return
    read = provenance(slide, "read")
    if source.exists() and target.samefile(source):
        if lost := texts(read.get("lost")):
            raise InputError(f"{source}: is not overwritten, because {lost[0]}; choose another OUT")
    elif not overwrite and recorded(target, "read/source") != read.get("source"):
        raise InputError(_foreign(source, target))


def _foreign(source: Path, target: Path) -> str:
    return (
        f"{target}: exists already and was not made from {source}; choose another OUT, or add "
        "--overwrite"
    )


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a folder against other processes; create it if it is missing.

    The lock is released if the process is killed. A folder that was created here is removed if
    nothing has been put into it.

    Raises
    ------
    InputError
        Another process has locked the folder, or it cannot be created.
    """
    path = Path(folder) / LOCK
    lock = FileLock(path, blocking=False)
    with writing(folder):
        made = _missing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            if not path.exists():  # the process that had it has just removed it
                lock.release()
                raise Timeout(str(path))
        except Timeout as error:
            raise InputError(
                f"{folder}: process {_holder(path)} is working in it; wait for it, or choose "
                "another folder"
            ) from error
        except NotImplementedError as error:
            raise InputError(f"{folder}: this disk has no locks; choose another place") from error
    try:
        with suppress(OSError):  # on Windows nobody writes to a locked file
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        with suppress(OSError):  # Windows keeps a lock that is held
            if made and [entry.name for entry in path.parent.iterdir()] == [LOCK]:
                path.unlink()
                _remove_empty(made)
        lock.release()


def _missing(path: Path) -> list[Path]:
    """List the folders of a path that are not there, the innermost first."""
    return [parent for parent in path.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # something is in it
        for folder in folders:
            folder.rmdir()


def _holder(lock: Path) -> str:
    """Get the id of the process that holds a lock, if known."""
    with suppress(OSError):
        return lock.read_text().strip() or "unknown"
    return "unknown"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary file next to `path`, and rename it to `path` if the block succeeds.

    Temporary files for the same path that killed runs have left are removed first.

    Parameters
    ----------
    path
        The file to create or replace; if it is a symbolic link, the file that this names. Its
        folder is created if it is missing.

    Yields
    ------
    A path in the same folder with the same suffix; removed if the block raises.

    Raises
    ------
    InputError
        `path` cannot be written, or the disk is full.
    """
    require_writable(path)
    target = Path(os.path.realpath(path))
    with writing(path):
        made = _missing(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_strays(target)
        beside = target.with_name(f"{_mark(target)}{temporary_name()}{target.suffix}")
        try:
            beside.touch(exist_ok=False)
            yield beside
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            mark(beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
            _remove_empty(made)


def _mark(target: Path) -> str:
    """Get what names of temporary files for a path begin with."""
    digest = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f".{target.stem[:40]}.{digest}."


def _remove_strays(target: Path) -> None:
    """Remove temporary files that killed processes have left."""
    mark = _mark(target)
    for entry in target.parent.iterdir():
        own = entry.name.startswith(mark) and entry.suffix == target.suffix
        if own and is_stray(entry, entry.name.removeprefix(mark)):
            with suppress(OSError):  # another process has removed it
                entry.unlink()


def write_anndata(
    slide: "AnnData", path: str | Path, add: Callable[[Path], object] = lambda _: None
) -> None:
    """Write a slide as .h5ad with :func:`replacing`; its tables may have thousands of columns.

    What an .h5ad cannot hold is renamed, converted or left out in `slide`, and logged. If `path` is
    a SpatialData, the results are written into its table.

    Parameters
    ----------
    add
        Adds to the written file what is not in memory.

    Raises
    ------
    InputError
        As :func:`replacing`.
    """
    import h5py

    from sagefm._writable import make_writable

    stage("writing %s", path)
    for note in make_writable(slide):
        logger.warning("%s: %s", path, note)
    if found := _table_at(path):
        with writing(path):
            return write_results(slide, found)
    tables = (slide.obs, slide.var, *slide.obsm.values(), *slide.varm.values())
    settings = h5py.get_config()
    before = settings.track_order
    # HDF5 has room for more names if it tracks their order. anndata does so from 5,001 columns on,
    # but HDF5 needs it from about 4,090.
    settings.track_order = before or any(table.shape[1] > _WIDE for table in tables)
    try:
        with replacing(path) as beside:
            write_h5ad(slide, beside)
            add(beside)
    finally:
        settings.track_order = before
