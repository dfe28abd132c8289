"""Widgets in the style of the page, and tables as HTML in which all text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from bokeh.models import (
    AutocompleteInput,
    Button,
    Div,
    InlineStyleSheet,
    RadioButtonGroup,
    Select,
    Slider,
    TextInput,
    Toggle,
)

_STYLE = (resources.files("sagefm.explore") / "widgets.css").read_text("utf-8")
_LONGEST = 60


def short(name: str, longest: int = _LONGEST) -> str:
    """Shorten a name for a place with little room, on one line; "(no name)" if it is empty."""
    name = " ".join(str(name).split())
    return (name[: longest - 1] + "…" if len(name) > longest else name) or "(no name)"


def text(name: object) -> str:
    """Escape text for HTML."""
    return escape(str(name))


def table(rows: Iterable[Sequence[object]], heads: Sequence[str] = (), *, numbers: int = 0) -> str:
    """Write a table; the last `numbers` columns hold numbers."""

    def row(cells: Sequence[object], tag: str) -> str:
        first = len(cells) - numbers
        return (
            "<tr>"
            + "".join(
                f'<{tag} class="number">{text(cell)}</{tag}>'
                if i >= first
                else f'<{tag} title="{text(cell)}">{text(cell)}</{tag}>'
                for i, cell in enumerate(cells)
            )
            + "</tr>"
        )

    return (
        "<table>"
        + (row(heads, "th") if heads else "")
        + "".join(row(cells, "td") for cells in rows)
        + "</table>"
    )


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names, so that the shortest of those with the same beginning is offered first."""
    return sorted((name for name in names if name.strip()), key=lambda name: (name.lower(), name))


class Widgets:
    """Make the widgets of one page, which share a style sheet."""

    def __init__(self) -> None:
        self._sheet = InlineStyleSheet(css=_STYLE)

    def _made(self, kind: Any, **properties: Any) -> Any:
        properties.setdefault("sizing_mode", "stretch_width")
        properties.setdefault("margin", 0)
        return kind(stylesheets=[self._sheet], **properties)

    def div(self, html: str = "", **properties: Any) -> Any:
        """Make a place for HTML."""
        return self._made(Div, text=html, **properties)

    def search(self, title: str, names: Sequence[str], **properties: Any) -> Any:
        """Make a search for one of many names."""
        return self._made(
            AutocompleteInput, title=title, completions=in_order(names), min_characters=1,
            max_completions=12, case_sensitive=False, restrict=True,
            search_strategy="starts_with", **properties,
        )  # fmt: skip

    def select(self, title: str, options: Any, **properties: Any) -> Any:
        """Make a list to choose from."""
        return self._made(Select, title=title, options=options, **properties)

    def choice(self, labels: Sequence[str], **properties: Any) -> Any:
        """Make buttons of which one is active."""
        return self._made(RadioButtonGroup, labels=list(labels), **properties)

    def slider(self, title: str, low: float, high: float, value: float, **properties: Any) -> Any:
        """Make a slider."""
        properties.setdefault("step", 0.05)
        return self._made(Slider, title=title, start=low, end=high, value=value, **properties)

    def button(self, label: str, **properties: Any) -> Any:
        """Make a button."""
        return self._made(Button, label=label, **properties)

    def toggle(self, label: str, **properties: Any) -> Any:
        """Make a button that is on or off."""
        return self._made(Toggle, label=label, **properties)

    def entry(self, title: str, **properties: Any) -> Any:
        """Make a field for text."""
        return self._made(TextInput, title=title, **properties)
