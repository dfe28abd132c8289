"""The verbs aggregate and disaggregate."""

from pathlib import Path
from typing import Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import require_own, require_writable
from sagefm._text import numbered
from sagefm.cli._options import (
    Layer,
    Out,
    Overwrite,
    SlideKey,
    SlidePath,
    listed,
    placed,
    require_suffix,
)


def aggregate(
    slide: SlidePath,
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="16um or another side of square bins; hexagons: 100 µm apart, without gaps; "
            "spots: the circles of Visium, 55 µm wide, without what lies between them.",
        ),
    ],
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Sum Visium HD bins or cells into larger bins or spots: writes an .h5ad with raw counts.

    Counts are exact sums. SLIDE may be one of the square_*um folders or segmented_outputs. Then
    disaggregate copies results back to the bins.
    """
    import sagefm
    from sagefm.pp.aggregate import summary
    from sagefm.pp.writing import write_slide

    require_suffix(out, [".h5ad"])
    require_writable(out)
    loaded = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_own(loaded, slide, out, overwrite=overwrite)
    if out.exists() and out.samefile(slide):
        raise InputError(f"{out}: is the slide itself; choose another OUT, to keep its bins")
    try:
        result = sagefm.pp.aggregate(loaded, to, slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    write_slide(result, out)
    typer.echo(f"{out}: {summary(result)}")


def disaggregate(
    slide: SlidePath,
    out: Out,
    aggregated: Annotated[
        Path, typer.Option(metavar="H5AD", help="Result of aggregate, with what was found there.")
    ],
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="obs columns or obsm keys to copy; the obs columns that SLIDE lacks if not given.",
        ),
    ] = None,
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Copy domains, labels or embeddings of aggregated spots to the bins or cells inside them.

    SLIDE is what was aggregated, or other bins or cells of the same section.
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    require_suffix(out, [".h5ad"])
    require_writable(out)
    loaded = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_own(loaded, slide, out, overwrite=overwrite)
    spots = sagefm.pp.open_slide(aggregated)
    try:
        table = sagefm.pp.disaggregate(spots, loaded, listed(keys), slide_key=slide_key)
    except InputError as error:
        raise InputError(placed(str(aggregated), error)) from error
    write_slide(loaded, out)
    n_missing = int(table["n_missing"].iloc[0])
    outside = f"; {numbered(n_missing, 'spot')} outside have no value" if n_missing else ""
    typer.echo(f"{out}: {', '.join(table['slot'])} of {table['n_spots'].iloc[0]:,} spots{outside}")
