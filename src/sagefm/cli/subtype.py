"""The verb subtype."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_writable
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Seed,
    SlideKey,
    SlidePaths,
    by_name,
    facts_of,
    require_suffix,
)

if TYPE_CHECKING:
    from sagefm.evaluate import Cohort
    from sagefm.tl import Subtypes

Pooling = Literal["mean", "quantiles"]


def subtype(
    slides: SlidePaths,
    out: Out,
    subtype_key: Annotated[
        str,
        typer.Option(
            help="Column (of --table or obs) with the subtype; a slide without is predicted."
        ),
    ],
    model: ModelPath = DEFAULT,
    table: Annotated[
        Path | None, typer.Option(help="CSV with a row per slide: slide, patient, subtype, …")
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    pooling: Annotated[
        Pooling, typer.Option(help="How the spots of a slide become features.")
    ] = "mean",
    genes: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write what drives each class.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also draw patients, and the evidence on each slide."),
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Learn the subtype of patients from their slides, and predict those without one: OUT.csv.

    Every patient with a subtype is predicted from all others. Pseudobulk stands beside the model.
    """
    import sagefm
    from sagefm.evaluate.cohort import Cohort

    for path in (out, genes):
        if path is not None:
            require_suffix(path, [".csv"])
            require_writable(path)
    if plot is not None:
        require_writable(plot / "patients.png")
    loaded = sagefm.SageFM.load(model, device=device)
    facts = facts_of(table) if table else None
    cohort = Cohort(
        by_name(slides), facts=facts, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    given = dict(cohort.table[subtype_key]) if subtype_key in cohort.table else subtype_key
    found = sagefm.tl.subtype(
        cohort, loaded, given, pooling=pooling,
        patients={name: cohort.patient(name) for name in cohort}, seed=seed, slide_key=slide_key,
        progress=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    with replacing(out) as beside:
        found.patients.to_csv(beside, float_format="%.6g")
    if genes is not None:
        with replacing(genes) as beside:
            found.genes.to_csv(beside, index=False, float_format="%.6g")
    if plot is not None:
        _draw(found, cohort, plot)
    typer.echo(f"{out}: {found}")


def _draw(found: "Subtypes", cohort: "Cohort", folder: Path) -> None:
    """Draw the patients, and each slide."""
    import sagefm
    from sagefm._keys import SUBTYPE_EVIDENCE

    sagefm.pl.subtype(found, save=folder / "patients.png")
    for name, slide in cohort.items():
        own = found.evidence[found.evidence["slide"] == name]
        slide.obs[SUBTYPE_EVIDENCE] = own["evidence"].to_numpy()
        predicted = found.patients["predicted"][cohort.patient(name)]
        title = f"{name}: evidence for {predicted}"
        sagefm.pl.subtype_evidence(slide, title=title, save=folder / f"{name}.png")
