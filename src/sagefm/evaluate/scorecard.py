"""The scorecard: protocols run one after the other, each kept as soon as it is done."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from sagefm._errors import InputError
from sagefm._files import locked, replacing
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols.annotation import annotation_protocol
from sagefm.evaluate.protocols.domains import domains_protocol
from sagefm.evaluate.protocols.recovery import recovery
from sagefm.evaluate.protocols.subtype import subtype_protocol
from sagefm.evaluate.result import Result
from sagefm.model import SageFM

PROTOCOLS = ("recovery", "imputation", "domains", "annotation", "subtype")
_PACKAGES = (
    "sagefm", "numpy", "scipy", "pandas", "scikit-learn", "torch", "anndata", "scanpy", "mofapy2",
    "scib-metrics",
)  # fmt: skip


def scorecard(
    cohort: Cohort,
    models: Mapping[str, SageFM],
    out: str | Path,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    reference: Cohort | None = None,
    label_key: str = "label",
    subtype_key: str | None = None,
    obsm: Sequence[str] = (),
    mofa: bool = True,
    seed: int = 0,
    command: str = "",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Result]:
    """Run protocols and keep their tables; what `out` has already is not done again.

    Parameters
    ----------
    cohort
        Slides to evaluate on.
    models
        Name → model.
    out
        A folder. Gets ``scorecard.json``, ``scorecard.csv`` and a folder per protocol with
        ``result.json`` and a CSV per detail table.
    protocols
        Of :data:`PROTOCOLS`.
    reference
        Slides that baselines of recovery and imputation learn from.
    label_key
        ``obs`` column with the labels of the spots.
    subtype_key
        Column of the cohort's facts or of ``obs`` with the label of a slide; without it the subtype
        protocol cannot run.
    obsm
        Keys of embeddings that lie in the slides.
    mofa
        Whether MOFA takes part.
    seed
        Source of all chance.
    command
        Written into the result.
    overwrite
        Whether a scorecard of other slides, models or settings in `out` is replaced.
    progress
        Called with a line per step.

    Returns
    -------
    The result of each protocol, in the order asked for.

    Raises
    ------
    InputError
        A protocol is unknown or cannot run on these slides, or `out` holds another scorecard.
    """
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise InputError(f"protocol {unknown[0]!r}: choose of {', '.join(PROTOCOLS)}, or all")
    facts = {
        "slides": json.loads(cohort.table.to_json(orient="index")),
        "reference": [] if reference is None else reference.table["checksum"].to_dict(),
        "models": {name: model.fingerprint for name, model in models.items()},
        "settings": {
            "label_key": label_key, "subtype_key": subtype_key, "obsm": list(obsm), "mofa": mofa,
            "seed": seed,
        },
        "versions": _versions(),
    }  # fmt: skip
    out = Path(out)
    stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    with locked(out):
        _require_same(out, stamp, overwrite)
        results = {}
        for name in protocols:
            done = _load(out / name, stamp)
            if done is not None:
                progress(f"{name}: done already")
            else:
                done = _run(
                    name, cohort, models, reference, label_key, subtype_key,
                    lambda: competitors(models, obsm=obsm, mofa=mofa, seed=seed), seed, progress,
                )  # fmt: skip
                _save(out / name, done, stamp)
            results[name] = done
            # What an earlier call with the same settings kept stays part of the scorecard.
            kept = {p: _load(out / p, stamp) for p in PROTOCOLS}
            _write(out, {p: r for p, r in kept.items() if r is not None}, facts, stamp, command)
    return results


def _run(
    name: str,
    cohort: Cohort,
    models: Mapping[str, SageFM],
    reference: Cohort | None,
    label_key: str,
    subtype_key: str | None,
    field: Callable[[], Any],
    seed: int,
    progress: Callable[[str], None],
) -> Result:
    if name in ("recovery", "imputation"):
        return recovery(cohort, models, reference, protocol=name, seed=seed, progress=progress)
    if name == "domains":
        return domains_protocol(cohort, field(), label_key, seed=seed, progress=progress)
    if name == "annotation":
        return annotation_protocol(cohort, field(), label_key, seed=seed, progress=progress)
    if subtype_key is None:
        raise InputError("subtype: needs a label per slide; name its column with --subtype-key")
    return subtype_protocol(cohort, field(), subtype_key, seed=seed, progress=progress)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def _require_same(out: Path, stamp: str, overwrite: bool) -> None:
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


def _save(folder: Path, result: Result, stamp: str) -> None:
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


def _load(folder: Path, stamp: str) -> Result | None:
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


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records", double_precision=12)))


def _write(
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
