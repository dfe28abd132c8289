"""Damage bytes, text, and trees of settings at random."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 1e308, 1e-308, float("nan"),
    float("inf"), 0.5, "", "x", "nan", "NaN", "1", "a\nb", "a\tb", "../x", "/", "\x00", "é",
    "x" * 3000, [], [1], ["x"], [None], {}, {"x": 1}, {"": []}, [[1], [2, 3]],
)  # fmt: skip
"""What somebody may write where something else is expected."""


def pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def flip(rng: Rng, data: bytes) -> bytes:
    """Flip one to eight bits."""
    if not data:
        return data
    changed = bytearray(data)
    for at in rng.integers(len(data), size=int(rng.integers(1, 9))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(rng: Rng, data: bytes) -> bytes:
    """Replace some bytes by zeros, by 0xff or by others."""
    at, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 65))
    filling = pick(rng, (bytes(size), b"\xff" * size, rng.bytes(size)))
    return data[:at] + filling + data[at + size :]


def truncate(rng: Rng, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def insert(rng: Rng, data: bytes) -> bytes:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 17))) + data[at:]


def repeat(rng: Rng, data: bytes) -> bytes:
    first, last = sorted(int(at) for at in rng.integers(len(data) + 1, size=2))
    return data[:last] + data[first:]


BYTES: tuple[Callable[[Rng, bytes], bytes], ...] = (
    flip, flip, flip, overwrite, overwrite, truncate, insert, repeat,
)  # fmt: skip


def damaged(rng: Rng, data: bytes) -> bytes:
    return pick(rng, BYTES)(rng, data)


def damage_file(rng: Rng, path: Path) -> str:
    """Damage a file in place; say how."""
    how = pick(rng, BYTES)
    path.write_bytes(how(rng, path.read_bytes()))
    return f"{how.__name__} {path.name}"


def damage_one_of(rng: Rng, folder: Path) -> str:
    """Damage, empty, remove or replace one file of a folder."""
    path = pick(rng, sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = pick(rng, ("bytes", "bytes", "bytes", "bytes", "gone", "empty", "folder"))
    if kind == "bytes":
        return damage_file(rng, path)
    if kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if kind == "folder":
        path.mkdir()
    return f"{kind} {path.name}"


def odd_text(rng: Rng, text: str, separator: str = ",") -> str:
    """Change fields or lines of a table."""
    lines = text.split("\n")
    at = int(rng.integers(len(lines)))
    fields = lines[at].split(separator)
    column = int(rng.integers(len(fields)))
    kind = int(rng.integers(9))
    if kind == 0:
        fields[column] = str(pick(rng, VALUES))
    elif kind == 1:
        del fields[column]
    elif kind == 2:
        fields.insert(column, str(pick(rng, VALUES)))
    elif kind == 3:
        fields[column] = f'"{fields[column]}'
    elif kind == 4:
        fields[column] = f" {fields[column].swapcase()} "
    lines[at] = separator.join(fields)
    if kind == 5:
        del lines[at]
    elif kind == 6:
        lines.insert(at, "")
    elif kind == 7:
        lines.insert(at, pick(rng, lines))
    elif kind == 8:
        return pick(
            rng, (text.replace(separator, ";"), text.replace("\n", "\r\n"), "\ufeff" + text)
        )
    return "\n".join(lines)


def odd_tree(rng: Rng, tree: Any) -> Any:
    """Replace, remove or add one thing somewhere in nested dicts and lists."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = pick(rng, sorted(tree, key=str))
        changed = dict(tree)
        kind = rng.random()
        if kind < 0.12:
            del changed[key]
        elif kind < 0.2:
            changed[str(pick(rng, ("x", "", "extra", "é")))] = pick(rng, VALUES)
        else:
            changed[key] = odd_tree(rng, tree[key])
        return changed
    if isinstance(tree, list) and tree and rng.random() < 0.7:
        at = int(rng.integers(len(tree)))
        return [*tree[:at], odd_tree(rng, tree[at]), *tree[at + 1 :]]
    return pick(rng, VALUES)


def as_json(tree: Any) -> bytes:
    return json.dumps(tree, default=str).encode()
