"""Run protocols one after the other, and save each result as soon as it is complete."""

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
from sagefm.evaluate import _resume
from sagefm.evaluate.baselines.clustering import CONSENSUS
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
    "scib-metrics", "harmonypy", "igraph",
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
    adapt: bool = True,
    seed: int = 0,
    command: str = "",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Result]:
    """Run protocols and save their tables; those that `out` already has are not run again.

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
        Slides that baselines of recovery and imputation are fitted to.
    label_key
        ``obs`` column with the labels of the spots.
    subtype_key
        Column of the cohort's facts or of ``obs`` with the label of a slide; the subtype protocol
        needs it.
    obsm
        Keys of further embeddings in ``obsm`` to compare with.
    mofa
        Whether to compare with MOFA.
    adapt
        Whether models are adapted to each slide in recovery; see :func:`sagefm.evaluate.recovery`.
    seed
        Seed of all random numbers.
    command
        The command line, which is written into the result.
    overwrite
        Whether to replace a scorecard of other slides, models or settings in `out`, and to write
        into a folder that holds other things.
    progress
        Called with a line per step.

    Returns
    -------
    Protocol → result, including protocols of earlier calls with the same slides, models and
    settings.

    Raises
    ------
    InputError
        A protocol is unknown or cannot run on these slides, or `out` has another scorecard.
    """
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise InputError(f"protocol {unknown[0]!r}: choose one of {', '.join(PROTOCOLS)}, or all")
    if "subtype" in protocols:
        require_subtypes(cohort, subtype_key)
    out = Path(out)
    if not overwrite:
        _resume.require_ours(out, PROTOCOLS)
    settings = {
        "label_key": label_key, "subtype_key": subtype_key, "obsm": list(obsm), "mofa": mofa,
        "adapt": adapt, "seed": seed,
    }  # fmt: skip
    facts = _facts(cohort, models, reference, settings)
    stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    methods = partial(competitors, models, obsm=obsm, mofa=mofa, seed=seed)
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    run: dict[str, Callable[[], Result]] = {
        "recovery": lambda: recovery(cohort, models, reference, adapt=adapt, **options),
        "imputation": lambda: recovery(cohort, models, reference, protocol="imputation", **options),
        "domains": lambda: domains(
            cohort, methods(), label_key, clusterings=[CONSENSUS], **options
        ),
        "annotation": lambda: annotation(cohort, methods(), label_key, **options),
        "subtype": lambda: subtype(cohort, methods(), subtype_key or "", **options),
    }
    with locked(out):
        _resume.require_same(out, stamp, overwrite)
        for name in protocols:
            if _resume.load_result(out / name, stamp) is not None:
                progress(f"{name}: already done")
            else:
                _resume.save_result(out / name, run[name](), stamp)
            saved = {name: _resume.load_result(out / name, stamp) for name in PROTOCOLS}
            results = {name: result for name, result in saved.items() if result is not None}
            _resume.write_scorecard(out, results, facts, stamp, command)
    return results


def _facts(
    cohort: Cohort,
    models: Mapping[str, SageFM],
    reference: Cohort | None,
    settings: Mapping[str, object],
) -> dict[str, Any]:
    """Collect everything that the results depend on."""
    return {
        "slides": json.loads(cohort.table.to_json(orient="index")),
        "reference": {} if reference is None else reference.table["checksum"].to_dict(),
        "models": {name: model.fingerprint for name, model in models.items()},
        "settings": dict(settings),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return versions
