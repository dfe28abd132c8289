"""Write a scorecard as Markdown."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.result import Result
from sagefm.model import SageFM


def markdown(
    results: Mapping[str, Result],
    cohort: Cohort,
    models: Mapping[str, SageFM],
    pictures: Mapping[str, Sequence[Path]],
    folder: Path,
) -> str:
    """Write results as a Markdown page: tables, notes and plots of each protocol.

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
    table = cohort.table
    lines = [
        "# Scorecard", "",
        f"{len(table)} slides of {table['patient'].nunique()} patients, "
        f"{int(table['spots'].sum()):,} spots. Intervals are 95 % bootstrap intervals over "
        "patients (over slides if there are fewer than three patients).", "",
    ]  # fmt: skip
    for name, model in models.items():
        slides = model.provenance.get("slides")
        trained_on = sorted(set(table.index) & set(slides if isinstance(slides, dict) else ()))
        lines.append(f"- **{name}**: {model}, fingerprint {model.fingerprint[:12]}")
        if trained_on:
            lines.append(
                f"  - was trained or validated on {len(trained_on)} of these slides: "
                f"{', '.join(trained_on)}"
            )
    for name, result in results.items():
        lines += ["", f"## {name.capitalize()}"]
        for caption, summary in result.summary.items():
            lines += ["", f"### {caption}", "", *_table(summary)]
        lines += ["", *(f"- {note}" for note in result.notes)]
        for picture in pictures.get(name, ()):
            lines += ["", f"![{picture.stem}]({os.path.relpath(picture, folder)})"]
    return "\n".join(lines) + "\n"


def _table(summary: pd.DataFrame) -> list[str]:
    """Write a table, with the interval of a mean in the same cell."""
    columns = [name for name in map(str, summary) if not name.endswith(("_low", "_high"))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for _, row in summary.iterrows():
        cells = []
        for name in columns:
            cell = _format(row[name])
            if f"{name}_low" in summary and pd.notna(row[f"{name}_low"]):
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                cell += f" ({_format(low)} to {_format(high)})"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _format(value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4f}"
    return str(value)
