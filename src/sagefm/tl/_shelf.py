"""Pieces of a long computation, kept so that a killed run goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagefm._files import replacing


class Shelf:
    """A folder of arrays that belong to one computation; without a folder nothing is kept.

    Parameters
    ----------
    folder
        Where they lie. What another computation left there is removed.
    facts
        All that the arrays depend on.
    """

    def __init__(self, folder: Path | None, facts: Any) -> None:
        self._folder = folder
        if folder is None:
            return
        stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        place = folder / "stamp"
        if not place.is_file() or place.read_text() != stamp:
            self.clear()
            with replacing(place) as beside:
                beside.write_text(stamp)

    def get(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Read an array, or compute and keep it."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{name}.npy"
        if path.is_file():
            found: NDArray[Any] = np.load(path, allow_pickle=False)
            return found
        computed = compute()
        with replacing(path) as beside:
            np.save(beside, computed)
        return computed

    def clear(self) -> None:
        """Remove all of it: the computation is done, or another one begins."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
