"""Names of slides and patients in files that are shared: digests in their place."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_FORM = re.compile(r"id-[0-9a-f]{12}")
_KEYED = {"slides", "trained_slides", "validation_spots", "weights"}
"""Entries whose keys are names."""
_NAMED = {"leave_out", "left_out", "patient", "patients", "validation"}
"""Entries that are a name, or a list of names."""
PUBLIC = "public_slides"
"""Entry that is true where all slides are published, so that their names may be kept."""


def pseudonym(name: str) -> str:
    """Replace a name by a digest; the same name always has the same one.

    It cannot be read, but who knows a name can test whether it is meant. An empty name and a
    digest stay as they are.
    """
    if not name or _FORM.fullmatch(name):
        return name
    digest = hashlib.sha256(f"sagefm {name}".encode(errors="surrogateescape")).hexdigest()
    return f"id-{digest[:12]}"


def without_names(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Replace names of slides and patients in a provenance, at any depth, unless all are public."""
    if entries.get(PUBLIC) is True:
        return dict(entries)
    replaced: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            inner = without_names(value)
            if key in _KEYED:
                inner = {pseudonym(str(k)): _without_file(str(k), v) for k, v in inner.items()}
            replaced[key] = inner
        elif key in _NAMED and isinstance(value, str):
            replaced[key] = pseudonym(value)
        elif key in _NAMED and isinstance(value, list | tuple):
            replaced[key] = [pseudonym(one) if isinstance(one, str) else one for one in value]
        else:
            replaced[key] = value
    return replaced


def _without_file(name: str, entry: Any) -> Any:
    """Leave out the source of a slide if it is the file that the slide is named after."""
    source = entry.get("source") if isinstance(entry, Mapping) else None
    if not isinstance(source, str):
        return entry
    stem = source.removesuffix(".h5ad").removesuffix(".zarr")
    named = name in source or name == stem or name.startswith(f"{stem}_")
    return {key: value for key, value in entry.items() if key != "source" or not named}


def with_names(text: str, names: Iterable[str]) -> str:
    """Put names that the user has given back in place of their digests."""
    known = {pseudonym(name): name for name in names}
    return _FORM.sub(lambda digest: known.get(digest[0], digest[0]), text)


def is_among(name: str, names: Collection[str]) -> bool:
    """Whether names, or the digests of names, hold this one."""
    return name in names or pseudonym(name) in names
