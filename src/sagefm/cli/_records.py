"""What was made of which slide with which options, beside the results of many slides."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagefm._files import replacing
from sagefm._keys import PROVENANCE
from sagefm._many import source_state

_FOLDER = ".sagefm"


@dataclass(frozen=True)
class ResultRecord:
    """A small file about the result of one slide.

    It is written before the work, with the files that will be ours, so that a killed run may
    replace what it has left; and again when the result is complete.
    """

    path: Path
    entry: str = ""
    """Where an .h5ad records the verb that made it."""

    @classmethod
    def of(cls, folder: Path, verb: str, name: str, entry: str = "") -> "ResultRecord":
        """Choose the record of a slide, or with an empty name that of all slides."""
        place = folder / _FOLDER / (f"{verb}/{name}.json" if name else f"{verb}.json")
        return cls(place, entry)

    def load(self) -> dict[str, Any]:
        """Read the record; empty if there is none."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return content if isinstance(content.get("files"), dict) else {}
        except (OSError, ValueError, AttributeError):
            return {}

    def owns(self, files: Iterable[Path]) -> bool:
        """Whether all files that exist are those that were written for this record."""
        listed = self._listed()
        return all(self._is_unchanged(path, listed) for path in files if path.exists())

    def is_done(self, made_of: Any, files: Iterable[Path]) -> bool:
        """Check for complete results of the same source, options and model."""
        content = self.load()
        if not content.get("line") or content.get("made_of") != made_of:
            return False
        listed = self._listed()
        return all(path.exists() and self._is_unchanged(path, listed) for path in {*listed, *files})

    def claim(self, files: Iterable[Path]) -> None:
        """Note the files that are about to be written, unless they are of somebody else."""
        listed = self._listed()
        ours = {path: listed.get(path) for path in files if path in listed or not path.exists()}
        self._write(ours)

    def release(self) -> None:
        """Give up the claim on files that were not written."""
        listed = self._listed()
        self._write({
            path: self._state(path) if state is None else state
            for path, state in listed.items() if path.exists()
        })  # fmt: skip

    def finish(
        self, made_of: Any, files: Iterable[Path], line: str, row: dict[str, Any] | None
    ) -> None:
        """Note that the result is complete."""
        listed = {path: self._state(path) for path in files if path.exists()}
        self._write(listed, made_of=made_of, line=line, row=row)

    def _listed(self) -> dict[Path, Any]:
        folder = self.path.parent
        listed = self.load().get("files", {})
        return {Path(os.path.normpath(folder / name)): state for name, state in listed.items()}

    def _write(self, files: dict[Path, Any], **more: Any) -> None:
        folder = self.path.parent  # the folder of the results may be moved
        content = {"files": {os.path.relpath(path, folder): s for path, s in files.items()}, **more}
        with replacing(self.path) as beside:
            beside.write_text(json.dumps(content), encoding="utf-8")

    def _is_unchanged(self, path: Path, listed: dict[Path, Any]) -> bool:
        if path not in listed:
            return False
        before, now = listed[path], self._state(path)
        if before is None:  # the run that would have written it was killed
            return True
        # Further steps on a slide do not undo what was made of it.
        further = bool(now["entry"]) and before.get("entry") == now["entry"]
        return bool(before.get("state") == now["state"]) or further

    def _state(self, path: Path) -> dict[str, Any]:
        state = source_state(path)
        return {
            "state": [state["size"], state["modified"]],
            "entry": _entry_of(path, self.entry) if path.suffix == ".h5ad" else "",
        }


def _entry_of(path: Path, entry: str) -> str:
    """Summarize what an .h5ad records of a verb and of its slide; empty if nothing."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path) as file:
            recorded = [read_elem(file[f"uns/{PROVENANCE}/{name}"]) for name in (entry, "read")]
    except (OSError, LookupError, TypeError, ValueError):
        return ""  # not there, truncated, or written by something else
    text = json.dumps(recorded, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
