"""The command ``sagefm cross``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import replacing, require_free, require_writable
from sagefm._many import cached_model
from sagefm._text import numbered
from sagefm.cli._jobs import say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    CountTables,
    Device,
    Layer,
    Out,
    Overwrite,
    Protein,
    Seed,
    SlideKey,
    SlidePaths,
    add_tables,
    listed,
    placed,
    require_suffix,
    slide_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

_PICTURES = ("maps.png", "overview.png")


@per_slide("out", ".csv", also={"plot": ""})
def cross(
    slides: SlidePaths,
    out: Out,
    with_: Annotated[
        str, typer.Option("--with", metavar="NAME", help="Second modality: protein, or a NAME.")
    ] = "protein",
    protein: Protein = None,
    counts: CountTables = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model whose embedding is added to the predictors."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="What to predict; all if not given.")
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Predict genes from the second modality.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw maps and an overview.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict proteins or other counts per spot from the expression around it, and test that.

    OUT.csv has a row per feature: r out of spatial blocks, p against maps as smooth that know
    nothing of the slide, what is left given library sizes, and baselines. Several slides are
    fitted together if OUT ends with .csv.
    """
    import sagefm

    require_suffix(out, [".csv"])
    require_writable(out)
    require_free(out, overwrite=overwrite)
    for name in _PICTURES if plot is not None else ():
        require_writable(plot / name)  # type: ignore[operator]
        require_free(plot / name, overwrite=overwrite)  # type: ignore[operator]
    loaded = None if model is None else cached_model(model, device)
    found: dict[str, AnnData] = {}
    for path, name in slide_names(slides).items():
        found[name] = sagefm.read(path, layer=layer, slide_key=slide_key)
    add_tables(found, protein, counts)
    asked = found if len(found) > 1 else next(iter(found.values()))
    try:
        table = sagefm.tl.cross(
            asked, loaded, with_, features=listed(features), reverse=reverse, seed=seed,
            slide_key=slide_key,
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    with replacing(out) as beside:
        table.to_csv(beside, float_format="%.6g")
    if plot is not None:
        sagefm.pl.cross(
            asked, with_, reverse=reverse, slide_key=slide_key, save=plot / _PICTURES[0]
        )
        sagefm.pl.cross(table, save=plot / _PICTURES[1])
    passed, left = (int((table[name] < 0.05).sum()) for name in ("q", "q_given_counts"))
    say(
        f"{out}: {numbered(len(table), 'feature')}, {passed:,} with q < 0.05, {left:,} given the "
        "library size"
    )
