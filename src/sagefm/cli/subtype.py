"""The command ``sagefm subtype``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm.cli._jobs import print_progress
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Seed,
    SlideKey,
    SlidePaths,
    by_name,
    facts_of,
    require_suffix,
    slide_names,
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
            help="Column (of --table or obs) with the subtype; empty where it is to be predicted."
        ),
    ],
    model: ModelPath = DEFAULT,
    table: Annotated[
        Path | None, typer.Option(help="CSV with a row per slide: slide, patient, subtype, …")
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    pooling: Annotated[
        Pooling, typer.Option(help="How spots are pooled into features of a slide.")
    ] = "mean",
    genes: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write the genes of each class.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also plot patients, and the evidence on each slide."),
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the subtype of patients from their slides: OUT.csv.

    Every patient with a subtype is predicted from all others. The model is compared with
    pseudobulk.
    """
    import sagefm
    from sagefm.evaluate import Cohort

    for path in (out, genes):
        if path is not None:
            require_suffix(path, [".csv"])
            require_writable(path)
    if plot is not None:
        require_writable(plot / "patients.png")
        pictures = ["patients", *slide_names(slides).values()]
        require_free(*(plot / f"{name}.png" for name in pictures), overwrite=overwrite)
    require_free(out, genes, overwrite=overwrite)
    loaded = sagefm.SageFM.load(model, device=device)
    facts = facts_of(table) if table else None
    cohort = Cohort(
        by_name(slides), facts=facts, patient_key=patient_key, layer=layer, slide_key=slide_key
    )
    key = dict(cohort.table[subtype_key]) if subtype_key in cohort.table else subtype_key
    subtypes = sagefm.tl.subtype(
        cohort, loaded, key, pooling=pooling,
        patients={name: cohort.patient(name) for name in cohort}, seed=seed, slide_key=slide_key,
        progress=print_progress,
    )  # fmt: skip
    with replacing(out) as beside:
        subtypes.patients.to_csv(beside, float_format="%.6g")
    if genes is not None:
        with replacing(genes) as beside:
            subtypes.genes.to_csv(beside, index=False, float_format="%.6g")
    if plot is not None:
        _plot(subtypes, cohort, plot)
    typer.echo(f"{out}: {subtypes}")


def _plot(subtypes: "Subtypes", cohort: "Cohort", folder: Path) -> None:
    """Plot the patients, and each slide."""
    import sagefm
    from sagefm._keys import SUBTYPE_EVIDENCE

    sagefm.pl.subtype(subtypes, save=folder / "patients.png")
    for name, slide in cohort.items():
        evidence = subtypes.evidence[subtypes.evidence["slide"] == name]
        slide.obs[SUBTYPE_EVIDENCE] = evidence["evidence"].to_numpy()
        predicted = subtypes.patients["predicted"][cohort.patient(name)]
        title = f"{name}: evidence for {predicted}"
        sagefm.pl.subtype_evidence(slide, title=title, save=folder / f"{name}.png")
