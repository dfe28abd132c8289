"""Remember which slides a table, a picture or a page was made from, in an attribute of the file.

An .h5ad says so itself. Where a file system has no such attributes, the file is like any other.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_ATTRIBUTE = "user.sagefm.made_from"
_made_from: ContextVar[bytes] = ContextVar("made_from", default=b"")


@contextmanager
def making(verb: str, sources: Iterable[str]) -> Iterator[None]:
    """Note in all files that are written meanwhile what they are made from."""
    words = [verb, *sorted(map(os.path.realpath, sources))]
    digest = hashlib.sha256("\n".join(words).encode(errors="surrogateescape")).hexdigest()
    token = _made_from.set(digest.encode())
    try:
        yield
    finally:
        _made_from.reset(token)


def mark(path: Path) -> None:
    """Note in a file what it is made from, if that is known and the system can."""
    if _made_from.get():
        with suppress(OSError, AttributeError):
            os.setxattr(path, _ATTRIBUTE, _made_from.get())


def is_own(path: Path) -> bool:
    """Whether a file is an earlier result of the same verb for the same slides."""
    with suppress(OSError, AttributeError):
        return bool(_made_from.get()) and os.getxattr(path, _ATTRIBUTE) == _made_from.get()
    return False
