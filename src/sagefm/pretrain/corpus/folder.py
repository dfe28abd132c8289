"""The folder of a corpus: its header, its lock, and the places of its slides.

``corpus.json`` is the header, ``slides/NAME.zarr`` a slide. A slide is written beside its place and
renamed: it is in the corpus as soon as its folder has its name.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from sagefm import __version__
from sagefm._errors import InputError
from sagefm._files import LOCK, locked, replacing, require_writable
from sagefm._text import few
from sagefm._validate import Range, parse_json, read_as, short
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.corpus.stored import sync

FILE = "corpus.json"
FORMAT = 1
_SLIDES = "slides"
_PASSING = re.compile(r"\.(?P<slide>.+)\.[0-9a-f]+\.(?P<kind>new|old)\.zarr")
"""A slide that is being written, or one that is being replaced."""


@dataclass(frozen=True)
class _File:
    """The entries of ``corpus.json``."""

    format: int
    sagefm: str
    symbols: tuple[str, ...]
    ensembl: tuple[str, ...]
    n_neighbors: Annotated[int, Range(1, 1000)]
    most_detected: int | None
    seal: str = ""
    """Checksum of the others; none of a corpus that an earlier sagefm made."""


@dataclass(frozen=True)
class Header:
    """The vocabulary of a corpus and the size of its neighborhoods."""

    vocabulary: Vocabulary
    n_neighbors: int
    most_detected: int | None = None
    """How many of the most detected genes the vocabulary was chosen as, if it was."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the header of a corpus.

        Raises
        ------
        InputError
            There is no corpus, its header is damaged, or it is of a later sagefm.
        """
        path = folder / FILE
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            if content["format"] > FORMAT:
                raise _LaterError(
                    f"{path}: is of sagefm {short(content['sagefm'])}, which this version "
                    f"({__version__}) cannot read; upgrade sagefm"
                )
            file = read_as(_File, content)
            if file.seal not in ("", _seal(content)):
                raise ValueError("it fails its checksum")
            return cls(Vocabulary(file.symbols, file.ensembl), file.n_neighbors, file.most_detected)
        except _LaterError:
            raise
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: is no corpus ({FILE} is missing); make one with sagefm corpus build"
            ) from error
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); check its permissions"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is damaged; put back a copy, or build anew") from error

    def write(self, folder: Path) -> None:
        """Write the header, or raise InputError."""
        content = asdict(self)
        content |= content.pop("vocabulary")
        content = {"format": FORMAT, "sagefm": __version__, **content}
        text = json.dumps(content | {"seal": _seal(content)}, ensure_ascii=False)
        with replacing(folder / FILE) as beside:
            beside.write_text(text, encoding="utf-8")


class _LaterError(InputError):
    """The corpus is of a later version."""


def _seal(content: dict[str, Any]) -> str:
    """Compute a checksum of all entries but the seal itself."""
    entries = {name: value for name, value in content.items() if name != "seal"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock a corpus against other builds; clean up before and after.

    Raises
    ------
    InputError
        Another build is running, the folder is no corpus, or it cannot be written to.
    """
    require_writable(folder / FILE)
    try:
        is_new = not folder.exists()
        others = set() if is_new else {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if FILE not in others and (others := others - {LOCK, _SLIDES}):
        raise InputError(
            f"{folder}: holds other things ({few(sorted(others))}) and is no corpus; name a new "
            "folder"
        )
    with locked(folder):
        (folder / _SLIDES).mkdir(exist_ok=True)
        _tidy(folder)
        try:
            yield
        finally:
            _tidy(folder)
            if not any((folder / _SLIDES).iterdir()):
                _remove(folder, is_new)


def _tidy(folder: Path) -> None:
    """Remove incomplete slides of a build that was killed, and restore those it was replacing."""
    for entry in sorted((folder / _SLIDES).iterdir()):
        if not (match := _PASSING.fullmatch(entry.name)):
            continue
        place = place_of(folder, match["slide"])
        if match["kind"] == "old" and not place.exists():
            entry.rename(place)
        else:
            shutil.rmtree(entry, ignore_errors=True)


def _remove(folder: Path, is_new: bool) -> None:
    """Remove a corpus without slides."""
    (folder / FILE).unlink(missing_ok=True)
    with suppress(OSError):  # Windows keeps a lock that is held, or other files are there
        (folder / LOCK).unlink(missing_ok=True)
        (folder / _SLIDES).rmdir()
        if is_new:
            folder.rmdir()


def place_of(folder: Path, slide: str) -> Path:
    """Get the path of a slide."""
    return folder / _SLIDES / f"{slide}.zarr"


def beside(place: Path) -> Path:
    """Get a temporary path to write a slide to."""
    return place.with_name(f".{place.stem}.{secrets.token_hex(4)}.new.zarr")


def places(folder: Path) -> dict[str, Path]:
    """Find the slides: name → path.

    Raises
    ------
    InputError
        The folder of the slides is missing or cannot be read.
    """
    try:
        slides = sorted(entry for entry in (folder / _SLIDES).iterdir() if entry.suffix == ".zarr")
    except OSError as error:
        raise InputError(
            f"{folder / _SLIDES}: cannot be read ({error.strerror}); check its permissions, or put "
            "back a copy"
        ) from error
    named = {place.name.removesuffix(".zarr"): place for place in slides}
    return {name: place for name, place in named.items() if not name.startswith(".")}


def put_in_place(written: Path, place: Path) -> None:
    """Rename a slide that was written to its place: from now on it is in the corpus."""
    if place.exists():
        old = written.with_name(f"{written.name.removesuffix('.new.zarr')}.old.zarr")
        place.rename(old)
        written.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        written.rename(place)
    sync(place.parent)
