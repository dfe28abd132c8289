"""Render a scorecard as a self-contained HTML page."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagefm.evaluate import Cohort, Result
from sagefm.evaluate.presentation import chapters, introduction
from sagefm.model import SageFM
from sagefm.report.rendering import picture, template

_COLORS = 128
_SCALE = 0.31
"""Pixels of the page per pixel of a picture, which is made for print."""


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


def _included(path: Path) -> dict[str, str]:
    """Encode a picture in 128 colors, a third of its size, and get its width on the page."""
    from PIL import Image  # matplotlib needs it

    buffer = io.BytesIO()
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(_COLORS).save(buffer, format="png", optimize=True)
        width = round(drawn.width * _SCALE)
    shown = picture(buffer.getvalue(), path.stem.replace("_", " "))
    return {**shown, "width": str(width)}
