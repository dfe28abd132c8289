"""What a scorecard keeps on disk: each protocol as soon as it is done, and all as one table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sagefm._errors import InputError
from sagefm._files import replacing
from sagefm.evaluate.result import Result


def require_same(out: Path, stamp: str, overwrite: bool) -> None:
    """Refuse to mix two scorecards in one folder."""
    held = _read(out / "scorecard.json")
    if held is not None and held.get("stamp") != stamp and not overwrite:
        raise InputError(
            f"{out}: holds a scorecard of other slides, models, settings or versions; choose "
            "another folder, or add --overwrite"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def save(folder: Path, result: Result, stamp: str) -> None:
    """Keep a result; the file that says it is whole comes last."""
    for name, table in result.details.items():
        with replacing(folder / f"{name}.csv") as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
    whole = {
        "stamp": stamp,
        "protocol": result.protocol,
        "notes": result.notes,
        "details": list(result.details),
        "summary": {caption: _records(table) for caption, table in result.summary.items()},
    }
    with replacing(folder / "result.json") as beside:
        beside.write_text(json.dumps(whole, indent=1))


def load(folder: Path, stamp: str) -> Result | None:
    """Read a result that was kept under the same stamp, whole."""
    held = _read(folder / "result.json")
    if held is None or held["stamp"] != stamp:
        return None
    try:
        details = {name: pd.read_csv(folder / f"{name}.csv") for name in held["details"]}
    except (OSError, ValueError):
        return None
    summary = {caption: pd.DataFrame(rows) for caption, rows in held["summary"].items()}
    return Result(held["protocol"], summary, details, held["notes"])


def all_of(out: Path, protocols: Sequence[str], stamp: str) -> dict[str, Result]:
    """Read what a scorecard holds, in the order of `protocols`."""
    found = {name: load(out / name, stamp) for name in protocols}
    return {name: result for name, result in found.items() if result is not None}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records", double_precision=12)))


def write(
    out: Path, results: Mapping[str, Result], facts: Mapping[str, Any], stamp: str, command: str
) -> None:
    """Write what all protocols gave as one JSON and one tidy CSV."""
    protocols = {
        name: {
            "summary": {caption: _records(table) for caption, table in result.summary.items()},
            "notes": result.notes,
        }
        for name, result in results.items()
    }
    whole = {"stamp": stamp, "command": command, **facts, "protocols": protocols}
    with replacing(out / "scorecard.json") as beside:
        beside.write_text(json.dumps(whole, indent=1))
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
