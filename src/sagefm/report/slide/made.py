"""The last sections of a report: its limits, and how it was made."""

import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sagefm import __version__
from sagefm._uns import provenance
from sagefm.report.slide.subject import Section, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "anndata", "matplotlib")
_LIMITS = (
    "A spot of an array holds several cells: a domain is a mixture of cells, not a cell type.",
    "Domains are groups of spots with similar counts. Their borders are those that the counts "
    "show, and their number is a choice.",
    "Suggested names come from lists of marker genes. They are suggestions: look at the genes and "
    "at the tissue.",
    "Markers are tested on the counts that the domains were found from. Their q ranks genes; it is "
    "no proof that a domain exists.",
)
_LIMITS_OF_MODEL = (
    "A predicted gene is not a measured gene. Do not test predicted values for differences, and do "
    "not report them as measurements.",
    "A correlation is about the pattern over the tissue, not about the level of expression.",
    "Nothing here is a diagnosis; sagefm has not been validated for clinical use.",
)


def limits(subject: Subject) -> list[str]:
    """List what a reader should not conclude."""
    lines = [*_LIMITS, *(_LIMITS_OF_MODEL if subject.model is not None else _LIMITS_OF_MODEL[2:])]
    if subject.n_sections > 1:
        lines.append(
            f"The file holds {subject.n_sections} sections. Numbers are over all of them, each "
            "with its own neighbors."
        )
    return lines


def how(subject: Subject, command: str, path: str, model_path: str) -> Section:
    """Tell how to repeat the report."""
    model, read = subject.model, provenance(subject.slide, "read")
    rows = [
        ("made on", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("file", Path(str(read.get("source") or "")).name),
        ("counts from", str(read.get("counts") or subject.layer or "")),
        ("sagefm", __version__),
        ("python", f"{platform.python_version()}, {sys.platform}"),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
        ("seed", str(subject.seed)),
    ]
    if model is not None:
        rows += [
            ("model", repr(model)),
            ("sha256 of weights, genes and configuration", model.fingerprint),
            *_training(model.provenance),
        ]
    if subject.quality is not None and (matched := subject.quality.made.get("matched")):
        rows.append(("genes", f"the slide {matched}"))
    rows.append(("seconds", ", ".join(f"{k} {v:.0f}" for k, v in subject.seconds.items())))
    return {
        "rows": [row for row in rows if row[1]],
        "command": command,
        "steps": "\n".join(_steps(subject, path, model_path)),
    }  # fmt: skip


def _training(entries: "Mapping[str, object]") -> list[tuple[str, str]]:
    slides = entries.get("trained_slides")
    return [("trained on", f"{len(slides):,} slides")] if isinstance(slides, dict) else []


def _steps(subject: Subject, path: str, model_path: str) -> list[str]:
    """Write the commands that give the results of the sections as files."""
    slide, seed = shlex.quote(path), f"--seed {subject.seed}"
    model = f"-m {shlex.quote(model_path)}"
    shared = f" --slide-key {shlex.quote(subject.slide_key)}" if subject.slide_key else ""
    number = provenance(subject.slide, "domains").get("n_domains")
    steps = [f"sagefm check {slide}{shared}" + (f" {model}" if subject.model else "")]
    if number is not None:
        steps += [
            f"sagefm domains {slide}{shared} -n {number} {seed} -o domains.h5ad",
            f"sagefm describe domains.h5ad{shared} {seed} -o markers",
        ]
    if subject.model is not None:
        steps.append(
            f"sagefm impute {slide}{shared} {model} {seed} -o imputed.h5ad --table imputed.csv"
        )
    if provenance(subject.slide, "rare"):
        steps.append(f"sagefm rare {slide}{shared} {seed} -o rare.h5ad --genes rare.csv")
    return steps
