"""The command ``sagefm rare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import replacing, require_free, require_own, require_writable
from sagefm._keys import PROVENANCE, RARE_POPULATION
from sagefm._many import cached_model
from sagefm._text import numbered
from sagefm.cli._jobs import say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    Device,
    Layer,
    Out,
    Overwrite,
    Seed,
    SlideKey,
    SlidePath,
    placed,
    require_result,
    require_suffix,
)

if TYPE_CHECKING:
    from anndata import AnnData


@per_slide("out", ".h5ad", also={"table": ".csv", "genes": ".csv", "plot": ".png"}, entry="rare")
def rare(
    slide: SlidePath,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Model file; without it, the profile of the slide is expected."
        ),
    ] = None,
    share: Annotated[float, typer.Option(help="Fraction of the spots that are listed.")] = 0.02,
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write the listed spots.")
    ] = None,
    genes: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Also write the genes that are enriched.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Also draw the score and the genes.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """List spots of rare populations: .h5ad with obs["sagefm_rare_score"] and obs["sagefm_rare"].

    The top 2 % are always listed; the number that exceeds the noise is printed.
    """
    import sagefm
    from sagefm.pp.writing import write_slide

    require_result(out)
    for path, suffixes in ((table, [".csv"]), (genes, [".csv"]), (plot, [".png", ".pdf", ".svg"])):
        if path is not None:
            require_suffix(path, suffixes)
    for path in (table, genes, plot):
        if path is not None:
            require_writable(path)
    require_free(table, genes, plot, overwrite=overwrite)
    loaded = None if model is None else cached_model(model, device)
    loaded_slide = sagefm.read(slide, layer=layer, slide_key=slide_key)
    require_own(loaded_slide, slide, out, overwrite=overwrite)
    try:
        spots, enriched = sagefm.tl.rare(
            loaded_slide, loaded, share=share, seed=seed, slide_key=slide_key
        )
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    write_slide(loaded_slide, out)
    for path, rows, index in ((table, spots, True), (genes, enriched, False)):
        if path is not None:
            with replacing(path) as beside:
                rows.to_csv(beside, float_format="%.6g", index=index)
    if plot is not None:
        _draw(loaded_slide, slide_key, plot)
    beyond = loaded_slide.uns[PROVENANCE]["rare"]["n_beyond_noise"]
    n = len(loaded_slide.obs[RARE_POPULATION].cat.categories) - 1
    say(
        f"{out}: {len(spots):,} spots listed; {beyond:,} spots beyond noise, "
        f"{numbered(n, 'population')}"
    )


def _draw(slide: "AnnData", slide_key: str | None, path: Path) -> None:
    """Draw the first section."""
    import sagefm
    from sagefm.pp.sections import section_codes

    first = section_codes(slide, slide_key) == 0
    sagefm.pl.rare(slide[first], save=path)
