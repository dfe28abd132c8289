"""Describe the contents of a slide and the findings about it as text."""

from typing import TYPE_CHECKING

from sagefm._uns import provenance, texts
from sagefm.pp.check import check, summarize

if TYPE_CHECKING:
    from anndata import AnnData


def contents(
    slide: "AnnData", *, layer: str | None = None, slide_key: str | None = None
) -> dict[str, str]:
    """Format the summary of :func:`sagefm.pp.summarize`: name → text."""
    summary = summarize(slide, layer=layer, slide_key=slide_key)
    return {name.replace("_", " "): _formatted(value) for name, value in summary.items()}


def remarks(
    slide: "AnnData",
    *,
    layer: str | None = None,
    slide_key: str | None = None,
    n_neighbors: int = 15,
) -> list[tuple[str, str]]:
    """List notes of :func:`sagefm.read` and findings of :func:`sagefm.pp.check`, with level."""
    findings = check(slide, layer=layer, slide_key=slide_key, n_neighbors=n_neighbors)
    messages = [finding.message for finding in findings]
    lines = texts(provenance(slide, "read").get("told"))
    notes = [("note", line) for line in lines if line not in messages]
    return notes + [(finding.level, finding.message) for finding in findings]


def _formatted(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "unknown", True: "yes", False: "no"}[value]
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)
