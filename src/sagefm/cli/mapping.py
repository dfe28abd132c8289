"""The verb map."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import require_own, require_writable, write_slide
from sagefm.cli._options import (
    Device,
    Layer,
    Overwrite,
    SlideKey,
    SlidePaths,
    by_name,
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

    targets = _targets(slides, out)
    paths, annotated = by_name(slides), by_name(reference)
    given = {Path(path).resolve() for path in slides}
    if twice := [path for path in reference if Path(path).resolve() in given]:
        raise InputError(f"{twice[0]}: is among the slides and the reference; give it once")
    for target in targets.values():
        require_writable(target)

    def read(path: str) -> "AnnData":
        return sagefm.read(path, layer=layer, slide_key=slide_key)

    loaded = {name: read(path) for name, path in paths.items()}
    for name, slide in loaded.items():
        require_own(slide, paths[name], targets[name], overwrite=overwrite)
    table = sagefm.tl.map(
        loaded, {name: read(path) for name, path in annotated.items()},
        None if model is None else sagefm.SageFM.load(model, device=device), key,
        patient_key=patient_key, slide_key=slide_key,
    )  # fmt: skip
    for name, slide in loaded.items():
        write_slide(slide, targets[name])
    for title, row in table.iterrows():
        typer.echo(
            f"{title}: {row['n_spots']:,} spots, {row['mapped']:.0%} mapped, "
            f"{row['unknown']:.0%} unknown, {row['n_genes']:,} genes in common"
        )
    typer.echo(f"written to {out}")


def _targets(slides: list[str], out: Path) -> dict[str, Path]:
    """Choose the file of each result."""
    names = list(by_name(slides))
    if out.suffix == ".h5ad" and len(names) == 1:
        return {names[0]: out}
    if out.suffix or out.is_file():
        raise InputError(
            f"{out}: name a folder for {len(names)} slides (no suffix), or a .h5ad file for one"
        )
    return {name: out / f"{name}.h5ad" for name in names}
