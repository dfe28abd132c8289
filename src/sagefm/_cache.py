"""Cache the arrays of a long computation, so that a killed run can resume."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._files import LOCK, locked, replacing

_STAMP = "stamp"


class ResumableCache:
    """A folder of arrays of one computation; without a folder nothing is cached.

    Open it with :meth:`open`, which locks the folder. Every array is stored with a checksum, of
    which the facts are a part: a damaged array, or one of another computation, is computed again.
    """

    def __init__(self, folder: Path | None, stamp: str) -> None:
        self._folder = folder
        self._stamp = stamp

    @classmethod
    @contextmanager
    def open(cls, folder: Path | None, facts: Any) -> Iterator[Self]:
        """Lock the folder during a computation; remove it if the computation succeeds.

        Parameters
        ----------
        folder
            Where the arrays are. Those of another computation are removed.
        facts
            All that the arrays depend on.

        Raises
        ------
        InputError
            The folder holds other things, or another process works in it.
        """
        stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        cache = cls(folder, stamp)
        if folder is None:
            yield cache
            return
        _require_ours(folder)
        with locked(folder):
            place = folder / _STAMP
            if not place.is_file() or place.read_bytes() != stamp.encode():
                _clear(folder)
                with replacing(place) as beside:
                    beside.write_text(stamp)
            try:
                yield cache
                _clear(folder)
            finally:
                if not any(folder.glob("*.npy")):
                    _remove(folder)

    def get(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Load an array, or compute and save it."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{quote(name, safe='')}.npy"
        if path.is_file() and (saved := self._load(path)) is not None:
            return saved
        computed = compute()
        content = io.BytesIO()
        np.save(content, computed, allow_pickle=False)
        with replacing(path) as beside, beside.open("wb") as file:
            file.write(content.getbuffer())
            file.write(self._digest(path, content.getbuffer()))
        return computed

    def _load(self, path: Path) -> NDArray[Any] | None:
        content = path.read_bytes()
        size = len(content) - hashlib.sha256().digest_size
        array = memoryview(content)[: max(size, 0)]
        if content[max(size, 0) :] != self._digest(path, array):
            return None
        saved: NDArray[Any] = np.load(io.BytesIO(array), allow_pickle=False)
        return saved

    def _digest(self, path: Path, array: memoryview) -> bytes:
        digest = hashlib.sha256(f"{self._stamp} {path.name}".encode())
        digest.update(array)
        return digest.digest()


def _require_ours(folder: Path) -> None:
    """Raise an error if a folder holds other things."""
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in names if not (name == LOCK or name.startswith(f".{_STAMP}."))}
    if others and _STAMP not in names:
        raise InputError(f"{folder}: holds other things; name a folder that is not there yet")


def _remove(folder: Path) -> None:
    """Remove a folder without arrays."""
    for name in (_STAMP, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # others have put something there
        folder.rmdir()


def _clear(folder: Path) -> None:
    """Remove the arrays, and what a killed run has left of them; the stamp says whose they are."""
    for path in (*folder.glob("*.npy"), *folder.glob(f".{_STAMP}.*")):
        path.unlink(missing_ok=True)
