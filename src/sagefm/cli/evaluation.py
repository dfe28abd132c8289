"""The command ``sagefm evaluate``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import replacing
from sagefm.cli._jobs import print_progress
from sagefm.cli._options import (
    Adapt,
    Device,
    Layer,
    Out,
    Seed,
    SlideKey,
    by_name,
    facts_of,
)

if TYPE_CHECKING:
    from sagefm.evaluate import Cohort

_DEFAULT_LABELS = "label"


def evaluate(
    slides: Annotated[
        list[str],
        typer.Option(
            metavar="SLIDES...", help="Space Ranger folders, .h5ad or .zarr to evaluate on."
        ),
    ],
    out: Out,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME...", help="recovery, imputation, domains, annotation, subtype; or all."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL...", help="Model files to evaluate."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLIDES...",
            help="Slides that baselines are fitted to; those of other patients if not given.",
        ),
    ] = None,
    label_key: Annotated[
        str, typer.Option(help="obs column with the labels of spots.")
    ] = _DEFAULT_LABELS,
    subtype_key: Annotated[
        str | None, typer.Option(help="Column (of obs or --table) with the label of a slide.")
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    table: Annotated[
        Path | None, typer.Option(help="CSV with a row per slide: slide, patient, subtype, …")
    ] = None,
    obsm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY...", help="obsm keys of other embeddings."),
    ] = None,
    mofa: Annotated[bool, typer.Option(help="Compare with MOFA, the slowest method.")] = True,
    adapt: Adapt = True,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another scorecard in OUT.")] = False,
) -> None:
    """Compare models with baselines: writes tables, plots and data to the folder OUT.

    Each protocol is saved when it is complete: the same command resumes an interrupted run.
    """
    import sagefm
    from sagefm.evaluate import Cohort, markdown
    from sagefm.report import scorecard_page

    loaded = {Path(path).stem: sagefm.SageFM.load(path, device=device) for path in model or []}
    if len(loaded) < len(model or []):
        raise InputError("two models have the same file name; rename one of them")
    facts = facts_of(table) if table else None
    cohort = Cohort(
        by_name(slides), facts=facts, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    reference_cohort = Cohort(
        by_name(reference), facts=facts, patient_key=patient_key, layer=layer, slide_key=slide_key
    ) if reference else None  # fmt: skip
    command = shlex.join(["sagefm", *sys.argv[1:]])
    results = sagefm.evaluate.scorecard(
        cohort, loaded, out, protocols=_protocols(protocol, cohort, label_key, subtype_key),
        reference=reference_cohort, label_key=label_key, subtype_key=subtype_key, obsm=obsm or [],
        mofa=mofa, adapt=adapt, seed=seed,
        command=command, overwrite=overwrite, progress=print_progress,
    )  # fmt: skip
    pictures = sagefm.pl.scorecard(results, out)
    pages = {
        "scorecard.md": markdown(results, cohort, loaded, pictures, out),
        "scorecard.html": scorecard_page(results, cohort, loaded, pictures, command=command),
    }
    for name, text in pages.items():
        with replacing(out / name) as beside:
            beside.write_text(text, encoding="utf-8")
    typer.echo(f"{out / 'scorecard.html'}: {', '.join(results)} on {len(cohort)} slides")


def _protocols(
    requested: Sequence[str] | None, cohort: "Cohort", label_key: str, subtype_key: str | None
) -> list[str]:
    """Expand "all" to the protocols that can run on these slides; print why others cannot.

    Raises
    ------
    InputError
        No slide has labels in the column that was given.
    """
    from sagefm.evaluate import PROTOCOLS, require_subtypes

    labeled = cohort.labeled(label_key)
    if not labeled and label_key != _DEFAULT_LABELS:
        raise InputError(f"--label-key {label_key}: no slide has labels in such a column of obs")
    if requested and "all" not in requested:
        return list(dict.fromkeys(requested))
    left_out = {}
    if cohort.table.loc[labeled, "patient"].nunique() < 2:
        left_out["annotation"] = f"fewer than two patients have labels in obs[{label_key!r}]"
    try:
        require_subtypes(cohort, subtype_key)
    except InputError as error:
        left_out["subtype"] = str(error)
    for name, reason in left_out.items():
        typer.echo(f"{name} is left out: {reason}", err=True)
    return [name for name in PROTOCOLS if name not in left_out]
