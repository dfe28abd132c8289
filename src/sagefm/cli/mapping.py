"""The verb map."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import require_own
from sagefm.cli._options import (
    Device,
    Layer,
    Overwrite,
    SlideKey,
    SlidePaths,
    by_name,
    results_of,
)

if TYPE_CHECKING:
    from anndata import AnnData


def map(
    slides: SlidePaths,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .h5ad file for one slide, a folder for several.")
    ],
    reference: Annotated[list[str], typer.Option(metavar="SLIDES...", help="Annotated slides.")],
    key: Annotated[str, typer.Option(help="obs column with the labels.")] = "label",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Its embedding is one more view; none is needed."),
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Carry the labels of annotated slides over: writes .h5ad with obs["sagefm_mapped"].

    Spots that are unlike all annotated ones are "unknown".
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    targets = results_of(slides, out)
    given = {Path(path).resolve() for path in slides}
    if twice := [path for path in reference if Path(path).resolve() in given]:
        raise InputError(f"{twice[0]}: is among the slides and the reference; give it once")

    def read(path: str) -> "AnnData":
        return sagefm.read(path, layer=layer, slide_key=slide_key)

    loaded = {name: read(path) for name, (path, _) in targets.items()}
    for name, (path, target) in targets.items():
        require_own(loaded[name], path, target, overwrite=overwrite)
    table = sagefm.tl.map(
        loaded, {name: read(path) for name, path in by_name(reference).items()},
        None if model is None else sagefm.SageFM.load(model, device=device), key,
        patient_key=patient_key, slide_key=slide_key,
    )  # fmt: skip
    for name, (_, target) in targets.items():
        write_slide(loaded[name], target)
    for title, row in table.iterrows():
        typer.echo(
            f"{title}: {row['n_spots']:,} spots, {row['mapped']:.0%} mapped, "
            f"{row['unknown']:.0%} unknown, {row['n_genes']:,} genes in common"
        )
    typer.echo(f"written to {out}")
