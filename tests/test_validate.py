"""Reading JSON into dataclasses: only what the fields declare gets through."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from sagefm._validate import Range, parse_json, read_as, short


@dataclass(frozen=True)
class Inner:
    sizes: tuple[Annotated[int, Range(1, 9)], ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: list[str]
    rates: dict[str, float]
    note: str | None = None
    anything: Any = None


GOOD = {"inner": {"sizes": [1, 2]}, "names": ["a"], "rates": {"x": 1}}


def test_declared_types_are_read():
    read = read_as(Outer, GOOD | {"anything": [{"a": 1}]})
    assert read == Outer(Inner((1, 2)), ["a"], {"x": 1}, None, [{"a": 1}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": {"sizes": [1, 0]}}, r"inner\.sizes\[1\] is 0, not 1 to 9"),
        ({"inner": {"sizes": [1.0]}}, r"inner\.sizes\[0\] is 1\.0, not a whole number"),
        ({"inner": {"sizes": [True]}}, "is True, not a whole number"),
        ({"inner": {"sizes": 3}}, r"inner\.sizes is 3, not a list"),
        ({"inner": {}}, r"inner\.sizes is missing"),
        ({"inner": []}, r"inner is \[\], not a table"),
        ({"inner": {"sizes": [], "more": 1}}, r"inner\.'more' is no entry"),
        ({"names": ["a", None]}, r"names\[1\] is None, not text"),
        ({"names": "a"}, "names is 'a', not a list"),
        ({"rates": {"x": "1"}}, r"rates\.'x' is '1', not a number"),
        ({"rates": {"x": True}}, "is True, not a number"),
        ({"rates": {"x": 10**400}}, "is a number of 1,329 bits"),
        ({"note": 5}, "note is 5, not text"),
    ],
)
def test_everything_else_is_one_line_that_names_the_entry(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_as(Outer, GOOD | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "two entries 'a'"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ', "Expecting value"),
        (b"\xff", "decode"),
    ],
)
def test_odd_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_values_are_shown_in_one_short_line():
    assert short("a\nb") == r"'a\nb'"
    assert short(ValueError("a\nb")) == "a b"
    assert short("x" * 1000) == f"'{'x' * 59}…"
