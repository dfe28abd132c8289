"""The scorecard: protocols run one after the other, each kept as soon as it is done."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sagefm._errors import InputError
from sagefm._files import locked
from sagefm.evaluate import kept
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.cohort import Cohort
from sagefm.evaluate.protocols.annotation import annotation
from sagefm.evaluate.protocols.domains import domains
from sagefm.evaluate.protocols.recovery import recovery
from sagefm.evaluate.protocols.subtype import require_subtypes, subtype
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
    What `out` now holds: the result of each protocol, also of those that an earlier call with the
    same slides, models and settings was asked for.

    Raises
    ------
    InputError
        A protocol is unknown or cannot run on these slides, or `out` holds another scorecard.
    """
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise InputError(f"protocol {unknown[0]!r}: choose of {', '.join(PROTOCOLS)}, or all")
    if "subtype" in protocols:
        require_subtypes(cohort, subtype_key)
    out = Path(out)
    settings = {
        "label_key": label_key, "subtype_key": subtype_key, "obsm": list(obsm), "mofa": mofa,
        "seed": seed,
    }  # fmt: skip
    facts = _facts(cohort, models, reference, settings)
    stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    field = partial(competitors, models, obsm=obsm, mofa=mofa, seed=seed)
    how: dict[str, Any] = {"seed": seed, "progress": progress}
    run: dict[str, Callable[[], Result]] = {
        "recovery": lambda: recovery(cohort, models, reference, **how),
        "imputation": lambda: recovery(cohort, models, reference, protocol="imputation", **how),
        "domains": lambda: domains(cohort, field(), label_key, **how),
        "annotation": lambda: annotation(cohort, field(), label_key, **how),
        "subtype": lambda: subtype(cohort, field(), subtype_key or "", **how),
    }
    with locked(out):
        kept.require_same(out, stamp, overwrite)
        for name in protocols:
            if kept.load(out / name, stamp) is not None:
                progress(f"{name}: done already")
            else:
                kept.save(out / name, run[name](), stamp)
            results = kept.all_of(out, PROTOCOLS, stamp)
            kept.write(out, results, facts, stamp, command)
    return results


def _facts(
    cohort: Cohort,
    models: Mapping[str, SageFM],
    reference: Cohort | None,
    settings: Mapping[str, object],
) -> dict[str, Any]:
    """Say all that the numbers depend on."""
    return {
        "slides": json.loads(cohort.table.to_json(orient="index")),
        "reference": {} if reference is None else reference.table["checksum"].to_dict(),
        "models": {name: model.fingerprint for name, model in models.items()},
        "settings": dict(settings),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
