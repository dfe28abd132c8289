"""Save the result of each protocol as soon as it is done, so that a scorecard can be resumed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sagefm._errors import InputError
from sagefm._files import LOCK, replacing
from sagefm._text import few
from sagefm.evaluate.result import Result


def require_ours(out: Path, protocols: Sequence[str]) -> None:
    """Raise an error if a folder holds other things than a scorecard, or a part of one."""
    if not out.is_dir() or (out / "scorecard.json").exists():
        return
    ours = (LOCK, ".scorecard.", "scorecard.", *protocols)
    others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(ours))
    if others:
        raise InputError(
            f"{out}: holds other things ({few(others)}); choose another folder, or add --overwrite"
        )


def require_same(out: Path, stamp: str, overwrite: bool) -> None:
    """Raise an error if the folder holds another scorecard."""
    saved = _read(out / "scorecard.json")
    if saved is not None and saved.get("stamp") != stamp and not overwrite:
        raise InputError(
            f"{out}: holds a scorecard of other slides, models, settings or versions; choose "
            "another folder, or add --overwrite"
        )


def save_result(folder: Path, result: Result, stamp: str) -> None:
    """Save the result of a protocol; ``result.json`` is written last, when the rest is complete."""
    for name, table in result.details.items():
        with replacing(folder / f"{name}.csv") as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
    _write(
        folder / "result.json",
        stamp=stamp, protocol=result.protocol, notes=result.notes, details=list(result.details),
        summary=_records(result),
    )  # fmt: skip


def load_result(folder: Path, stamp: str) -> Result | None:
    """Load a complete result with the same stamp; None if there is none."""
    saved = _read(folder / "result.json")
    if saved is None or saved["stamp"] != stamp:
        return None
    try:
        details = {name: pd.read_csv(folder / f"{name}.csv") for name in saved["details"]}
    except (OSError, ValueError):
        return None
    summary = {caption: pd.DataFrame(rows) for caption, rows in saved["summary"].items()}
    return Result(saved["protocol"], summary, details, saved["notes"])


def write_scorecard(
    out: Path, results: Mapping[str, Result], facts: Mapping[str, Any], stamp: str, command: str
) -> None:
    """Write the results of all protocols to one JSON file and one tidy CSV file."""
    protocols = {
        name: {"summary": _records(result), "notes": result.notes}
        for name, result in results.items()
    }
    _write(out / "scorecard.json", stamp=stamp, command=command, **facts, protocols=protocols)
    rows = [
        table.melt(["method", "kind"], var_name="metric").assign(protocol=name, table=caption)
        for name, result in results.items()
        for caption, table in result.summary.items()
    ]
    if rows:
        tidy = pd.concat(rows, ignore_index=True).dropna(subset="value")
        with replacing(out / "scorecard.csv") as beside:
            columns = ["protocol", "table", "method", "kind", "metric", "value"]
            tidy[columns].to_csv(beside, index=False)


def _records(result: Result) -> dict[str, list[dict[str, Any]]]:
    return {
        caption: json.loads(table.to_json(orient="records", double_precision=12))
        for caption, table in result.summary.items()
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def _write(path: Path, **content: Any) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=1))
