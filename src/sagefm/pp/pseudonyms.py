"""Names of slides and patients in files that are shared: digests in their place."""

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any

_FORM = re.compile(r"id-[0-9a-f]{12}")
_KEYED = {"slides", "trained_slides", "validation_spots", "weights"}
"""Entries whose keys are names."""
_NAMED = {"leave_out", "left_out", "patient", "patients", "validation"}
"""Entries that are a name, or a list of names."""


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
    """Replace the names of slides and patients in a provenance, at any depth."""
    replaced: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            inner = without_names(value)
            named = key in _KEYED
            replaced[key] = {pseudonym(str(k)): v for k, v in inner.items()} if named else inner
        elif key in _NAMED and isinstance(value, str):
            replaced[key] = pseudonym(value)
        elif key in _NAMED and isinstance(value, list | tuple):
            replaced[key] = [pseudonym(one) if isinstance(one, str) else one for one in value]
        else:
            replaced[key] = value
    return replaced


def is_among(name: str, names: Collection[str]) -> bool:
    """Whether names, or the digests of names, hold this one."""
    return name in names or pseudonym(name) in names
