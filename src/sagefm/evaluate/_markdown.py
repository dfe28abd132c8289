"""Write a scorecard as Markdown."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.presentation import ShownTable, chapters, introduction
from sagefm.evaluate.result import Result
from sagefm.model import SageFM

_EMPHASIS = {"model": "**", "control": "*"}


def markdown(
    results: Mapping[str, Result],
    cohort: Cohort,
    models: Mapping[str, SageFM],
    pictures: Mapping[str, Sequence[Path]],
    folder: Path,
) -> str:
    """Write results as a Markdown page: tables, notes and plots of each protocol.

    Tables have at most eight columns; the others are in ``scorecard.csv``.

    Parameters
    ----------
    results
        Protocol → result.
    cohort
        The slides of the evaluation.
    models
        Name → model.
    pictures
        Protocol → files.
    folder
        Folder of the page; paths of pictures are relative to it.
    """
    about, evaluated = introduction(cohort, models)
    lines = ["# Scorecard", "", about, "", *(f"- {line}" for line in evaluated)]
    for name, chapter in chapters(results).items():
        lines += ["", f"## {chapter.title}"]
        for table in chapter.tables:
            lines += ["", f"### {table.caption}", "", *_table(table)]
        lines += ["", *(f"- {note}" for note in chapter.notes)]
        for picture in pictures.get(name, ()):
            lines += ["", f"![{picture.stem}]({os.path.relpath(picture, folder)})"]
    return "\n".join(lines) + "\n"


def _table(table: ShownTable) -> list[str]:
    lines = [f"{table.remark}.", ""] if table.remark else []
    lines += ["| " + " | ".join(table.header) + " |", "|" + "---|" * len(table.header)]
    for kind, (method, *cells) in zip(table.kinds, table.rows, strict=True):
        mark = _EMPHASIS.get(kind, "")
        lines.append("| " + " | ".join([f"{mark}{method}{mark}", *map(str, cells)]) + " |")
    return lines
