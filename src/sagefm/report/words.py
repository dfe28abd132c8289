"""What a slide holds and what is to be said of it, in words."""

from typing import TYPE_CHECKING

from sagefm._keys import PROVENANCE
from sagefm.pp.check import check, summarize

if TYPE_CHECKING:
    from anndata import AnnData


def contents(
    slide: "AnnData", *, layer: str | None = None, slide_key: str | None = None
) -> dict[str, str]:
    """Write what :func:`sagefm.pp.summarize` finds for people: what → value."""
    found = summarize(slide, layer=layer, slide_key=slide_key)
    return {name.replace("_", " "): _spelled(value) for name, value in found.items()}


def remarks(
    slide: "AnnData",
    *,
    layer: str | None = None,
    slide_key: str | None = None,
    n_neighbors: int = 15,
) -> list[tuple[str, str]]:
    """List what reading told, then what :func:`sagefm.pp.check` finds: level and message."""
    findings = check(slide, layer=layer, slide_key=slide_key, n_neighbors=n_neighbors)
    messages = [finding.message for finding in findings]
    read = slide.uns.get(PROVENANCE, {}).get("read", {})
    told = [("told", str(line)) for line in read.get("told", ()) if line not in messages]
    return told + [(finding.level, finding.message) for finding in findings]


def _spelled(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "unknown", True: "yes", False: "no"}[value]
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)
