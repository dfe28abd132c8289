"""Read JSON into dataclasses whose fields declare what a value can be.

A file can say anything, so nothing of it is used before it has the declared type. A type is
``bool``, ``int``, ``float``, ``str``, ``Any`` (JSON of any kind), a dataclass,
``tuple[TYPE, ...]``, ``list[TYPE]``, ``dict[str, TYPE]``, ``TYPE | None``, or
``Annotated[TYPE, Range(1, 9)]``.
"""

import json
import operator
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_DEEPEST = 32
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_BEYOND = 2**63


class Range(NamedTuple):
    """The lowest and the highest value of a number."""

    low: float
    high: float


def short(value: object, most: int = 60) -> str:
    """Show any value in one line."""
    text = " ".join((str(value) if isinstance(value, Exception) else repr(value)).split())
    return text if len(text) <= most else f"{text[:most]}…"


def parse_json(text: str | bytes) -> Any:
    """Parse JSON without duplicated names, and not nested deeper than 32 levels.

    Raises
    ------
    ValueError
        It is something else.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("is nested too deeply")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"has two entries {short(twice)}")
    return found


def read_as(kind: type[_T], content: object, name: str = "") -> _T:
    """Make a dataclass of a mapping that was read from a file.

    Parameters
    ----------
    kind
        The dataclass; every field without a default must be there, and no other entry.
    content
        What was read.
    name
        Of the content, for the message.

    Raises
    ------
    ValueError
        The message begins with the entry that is wrong.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{name or 'it'} is {short(content)}, not a table")
    prefix = f"{name}." if name else ""
    hints = get_type_hints(kind, include_extras=True)
    declared = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for entry in content:
        if entry not in declared:
            raise ValueError(f"{prefix}{short(entry)} is no entry of this format")
    values = {}
    for entry, field in declared.items():
        if entry in content:
            values[entry] = checked(hints[entry], content[entry], f"{prefix}{entry}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{prefix}{entry} is missing")
    return kind(**values)


def require_declared(instance: object) -> None:
    """Check the fields of a frozen dataclass that was made in Python; lists become tuples.

    Raises
    ------
    ValueError
        As :func:`read_as`.
    """
    for entry, kind in get_type_hints(type(instance), include_extras=True).items():
        value = checked(kind, getattr(instance, entry), entry)
        object.__setattr__(instance, entry, value)


def checked(kind: Any, value: Any, name: str) -> Any:
    """Check one value; see :func:`read_as`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return read_as(kind, value, name)  # type: ignore[arg-type]
    if origin in (UnionType, Union):
        return None if value is None else checked(arguments[0], value, name)
    if origin is Annotated:
        return _in_range(checked(arguments[0], value, name), arguments[1], name)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {short(value)}, not a list")
        if arguments[0] is str and all(type(each) is str for each in value):
            return origin(value)  # the quick way, for thousands of genes
        return origin(checked(arguments[0], v, f"{name}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{name} is {short(value)}, not a table")
        return {key: checked(arguments[1], v, f"{name}.{short(key)}") for key, v in value.items()}
    return _plain(kind, value, name)


def _in_range(value: Any, limits: Range, name: str) -> Any:
    if not limits.low <= value <= limits.high:
        raise ValueError(f"{name} is {short(value)}, not {limits.low:,} to {limits.high:,}")
    return value


def _plain(kind: Any, value: Any, name: str) -> Any:
    """Check a value that holds no others."""
    if kind is int and not isinstance(value, bool) and hasattr(value, "__index__"):
        value = operator.index(value)  # also those of numpy
    if isinstance(value, int) and not -_BEYOND <= value < _BEYOND:
        raise ValueError(f"{name} is a number of {value.bit_length():,} bits; none is that large")
    if kind is float and type(value) is int:
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {short(value)}, not {_WORDS[kind]}")
    return value
