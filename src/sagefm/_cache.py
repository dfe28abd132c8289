"""Cache the arrays of a long computation, so that a killed run can resume."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._files import replacing

_STAMP = "stamp"


class ResumableCache:
    """A folder of arrays of one computation; without a folder nothing is cached.

    Parameters
    ----------
    folder
        Where they are. Arrays of another computation are removed.
    facts
        All that the arrays depend on.

    Raises
    ------
    InputError
        The folder holds other things.
    """

    def __init__(self, folder: Path | None, facts: Any) -> None:
        self._folder = folder
        if folder is None:
            return
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _STAMP).is_file():
            raise InputError(f"{folder}: holds other things; name a folder that is not there yet")
        stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        place = folder / _STAMP
        if not place.is_file() or place.read_text() != stamp:
            self.clear()
            with replacing(place) as beside:
                beside.write_text(stamp)

    def get(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Load an array, or compute and save it."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{quote(name, safe='')}.npy"
        if path.is_file():
            saved: NDArray[Any] = np.load(path, allow_pickle=False)
            return saved
        computed = compute()
        with replacing(path) as beside:
            np.save(beside, computed)
        return computed

    def clear(self) -> None:
        """Remove all arrays, when the computation is done or another begins."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in [*self._folder.glob("*.npy"), self._folder / _STAMP]:
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()
