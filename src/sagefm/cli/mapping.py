"""The verb map."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import require_own
from sagefm._many import cached_model, source_state
from sagefm.cli._jobs import say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    Device,
    Layer,
    Overwrite,
    SlideKey,
    SlidePath,
    by_name,
    require_result,
)

if TYPE_CHECKING:
    from anndata import AnnData


@per_slide("out", ".h5ad", entry="map")
def map(
    slide: SlidePath,
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

    require_result(out)
    place = Path(slide).resolve()
    if twice := [path for path in reference if Path(path).resolve() == place]:
        raise InputError(f"{twice[0]}: is among the slides and the reference; give it once")
    loaded = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_own(loaded, slide, out, overwrite=overwrite)
    [name] = by_name([slide])
    table = sagefm.tl.map(
        {name: loaded}, _read_reference(by_name(reference), layer, slide_key),
        None if model is None else cached_model(model, device), key,
        patient_key=patient_key, slide_key=slide_key,
    )  # fmt: skip
    write_slide(loaded, out)
    for title, row in table.iterrows():
        say(
            f"{title}: {row['n_spots']:,} spots, {row['mapped']:.0%} mapped, "
            f"{row['unknown']:.0%} unknown, {row['n_genes']:,} genes in common"
        )
    say(f"written to {out}")


def _read_reference(
    named: dict[str, str], layer: str | None, slide_key: str | None
) -> "dict[str, AnnData]":
    """Read the annotated slides; a worker that does many slides reads them once."""
    states = [tuple(source_state(Path(path)).values()) for path in named.values()]
    return _read_once(tuple(named.items()), tuple(states), layer, slide_key)


@lru_cache(maxsize=1)
def _read_once(
    named: tuple[tuple[str, str], ...], states: object, layer: str | None, slide_key: str | None
) -> "dict[str, AnnData]":
    import sagefm

    return {name: sagefm.read(path, layer=layer, slide_key=slide_key) for name, path in named}
