"""Format lists and numbers for messages."""

from collections.abc import Iterable
from typing import Any

MISSING = frozenset(
    ["", "nan", "NaN", "NA", "N/A", "n/a", "<NA>", "NaT", "None", "null", "NULL", "#N/A"]
)
"""What other tools write, and pandas reads from a table, where there is no value."""


def few(names: Iterable[Any], at_most: int = 3) -> str:
    """Join the first names of a list: A, B, C, …."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:at_most]) + (", …" if len(listed) > at_most else "")


def numbered(number: int, noun: str) -> str:
    """Write a number with its noun: 1 spot, 2,695 spots."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def probability(symbol: str, value: float) -> str:
    """Write a p or q value: p = 0.63, p < 0.001; never rounded up to 0.05 from below."""
    if value < 0.001:
        return f"{symbol} < 0.001"
    written = f"{value:.2g}"
    return f"{symbol} {'<' if value < 0.05 <= float(written) else '='} {written}"


def or_below(count: float, below: int) -> str:
    """Write a count of patients, or that it is below a number: <5."""
    return f"<{below}" if 0 < count < below else f"{count:,.0f}"
