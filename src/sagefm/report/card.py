"""Render a scorecard as a self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sagefm.evaluate import Cohort, Result
from sagefm.evaluate.presentation import chapters, introduction
from sagefm.model import SageFM
from sagefm.report.rendering import picture, template, with_palette

_COLORS = 128
_DPI = 300
"""Of the pictures, which are made for print."""


def scorecard_page(
    results: Mapping[str, Result],
    cohort: Cohort,
    models: Mapping[str, SageFM],
    pictures: Mapping[str, Sequence[Path]],
    *,
    command: str = "",
) -> str:
    """Render results as a page: tables, notes and plots of each protocol.

    Parameters
    ----------
    results
        Protocol → result.
    cohort
        The slides of the evaluation.
    models
        Name → model.
    pictures
        Protocol → files, which are copied into the page.
    command
        The command line.

    Returns
    -------
    HTML that includes all pictures.
    """
    about, evaluated = introduction(cohort, models)
    shown = chapters(results)
    included = [[_included(path) for path in pictures.get(name, ())] for name in shown]
    return template("scorecard.html.jinja").render(
        about=about, models=evaluated, chapters=list(shown.values()), pictures=included,
        command=command,
    )  # fmt: skip


def _included(path: Path) -> dict[str, object]:
    """Include a picture in few colors."""
    with path.open("rb") as file:
        png = with_palette(file, _COLORS)
    return picture(png, "", alt=path.stem.replace("_", " "), pixels_per_inch=_DPI)
