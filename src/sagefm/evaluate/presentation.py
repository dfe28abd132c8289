"""What a scorecard shows: its chapters, as text that a page in any format can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from sagefm._text import numbered
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.result import Result
from sagefm.model import SageFM
from sagefm.pp.pseudonyms import is_among

MAX_COLUMNS = 8
_COLUMNS = {
    "recovery": ("mse", "share_left", "r_within_10", "r_depth_removed_10", "beats"),
    "imputation": ("mse", "r_within_10", "r_depth_removed_10", "deviance", "beats"),
    "domains": (
        "ari", "nmi", "ari_kmeans", "ari_leiden", "sd_seeds",
        "macro_f1", "ari_carried", "ari_together", "clisi", "ilisi",
        "silhouette", "davies_bouldin", "coherence", "largest",
    ),
    "annotation": ("balanced_accuracy", "macro_f1", "accuracy", "ece"),
    "subtype": ("auroc", "balanced_accuracy", "accuracy", "p", "q"),
}  # fmt: skip
"""Columns that are shown if the table has them, in this order."""
_FOUR_DIGITS = frozenset({"mse", "excess", "deviance"})
_NOT_METRICS = frozenset({"method", "kind", "unit", "verdict", "n_slides", "n_patients"})


class Cell(NamedTuple):
    """The text of a cell, and the interval of a mean."""

    text: str
    interval: str = ""

    def __str__(self) -> str:
        """Write both in one line."""
        return f"{self.text} ({self.interval})" if self.interval else self.text


@dataclass(frozen=True)
class ShownTable:
    """A table of at most eight columns.

    Attributes
    ----------
    caption
        What it shows.
    remark
        How many slides and patients the numbers are of.
    header
        Names of the columns; the first is the method.
    rows
        Their cells.
    kinds
        Of the method in each row.
    """

    caption: str
    remark: str
    header: list[str]
    rows: list[list[Cell]]
    kinds: list[str]


@dataclass(frozen=True)
class Chapter:
    """One protocol."""

    title: str
    tables: list[ShownTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def chapters(results: Mapping[str, Result]) -> dict[str, Chapter]:
    """Choose what is shown of each protocol.

    Parameters
    ----------
    results
        Protocol → result.
    """
    return {
        name: Chapter(
            name.capitalize(),
            [_shown(caption, table, name) for caption, table in result.summary.items()],
            result.notes,
        )
        for name, result in results.items()
    }


def introduction(cohort: Cohort, models: Mapping[str, SageFM]) -> tuple[str, list[str]]:
    """Describe the slides, and each model with those that it was trained on.

    Parameters
    ----------
    cohort
        The slides of the evaluation.
    models
        Name → model.
    """
    table = cohort.table
    about = (
        f"{numbered(len(table), 'slide')} of {numbered(table['patient'].nunique(), 'patient')}, "
        f"{int(table['spots'].sum()):,} spots. Intervals are 95 % bootstrap intervals over "
        "patients (over slides if there are fewer than three patients)."
    )
    lines = []
    for name, model in models.items():
        recorded = model.provenance.get("slides")
        slides = recorded if isinstance(recorded, dict) else {}
        trained_on = sorted(name for name in table.index if is_among(name, slides))
        line = f"{name}: {model}, fingerprint {model.fingerprint[:12]}"
        if trained_on:
            line += (
                f"; was trained or validated on {len(trained_on)} of these slides: "
                f"{', '.join(trained_on)}"
            )
        lines.append(line)
    return about, lines


def _shown(caption: str, table: pd.DataFrame, protocol: str) -> ShownTable:
    ends = ("_low", "_high")
    available = [str(c) for c in table if c not in _NOT_METRICS and not str(c).endswith(ends)]
    chosen = [c for c in _COLUMNS.get(protocol, available) if c in available]
    around = [name for name in ("method", "kind", "verdict") if name in table]
    if "verdict" in around and not table["verdict"].fillna("").any():
        around.remove("verdict")
    chosen = [c for c in chosen if table[c].notna().any()][: MAX_COLUMNS - len(around)]
    n, remark = _numbers(table)
    rows = [
        [
            Cell(f"{row['method']}{n[i]}"),
            *([Cell(row["kind"])] if "kind" in around else []),
            *(_cell(row, name) for name in chosen),
            *([Cell(row["verdict"] or "")] if "verdict" in around else []),
        ]
        for i, (_, row) in enumerate(table.iterrows())
    ]
    header = [*around[: 1 + ("kind" in around)], *chosen, *around[1 + ("kind" in around) :]]
    kinds = [str(kind) for kind in table["kind"]] if "kind" in table else [""] * len(table)
    return ShownTable(caption, remark, header, rows, kinds)


def _numbers(table: pd.DataFrame) -> tuple[list[str], str]:
    """Say how many slides there are: of each row, if they differ, or of all."""
    if "n_slides" not in table or table.empty:
        return [""] * len(table), ""
    n = [numbered(int(row["n_slides"]), "slide") for _, row in table.iterrows()]
    if len(set(n)) > 1:
        return [f" ({one})" for one in n], ""
    remark = n[0]
    if "n_patients" in table and table["n_patients"].nunique() == 1:
        remark += f" of {numbered(int(table['n_patients'].iloc[0]), 'patient')}"
    if "unit" in table:
        remark += f"; intervals over {table['unit'].iloc[0]}s"
    return [""] * len(table), remark


def _cell(row: "pd.Series[Any]", name: str) -> Cell:
    text = _format(row[name], name)
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    if not text or low is None or pd.isna(low):
        return Cell(text)
    return Cell(text, f"{_format(low, name)} to {_format(high, name)}")


def _format(value: object, name: str) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        if name in ("p", "q"):
            return f"{value:.2g}"
        return f"{value:.{4 if name in _FOUR_DIGITS else 3}f}"
    return str(value)
