"""The verb influence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm._many import cached_model
from sagefm.cli._jobs import print_progress, say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Region,
    Seed,
    SlideKey,
    SlidePath,
    listed,
    placed,
    require_suffix,
)

if TYPE_CHECKING:
    import pandas as pd

_PICTURES = 6
"""Genes that are drawn where none are named."""


@per_slide("out", ".csv", also={"plot": ""})
def influence(
    slide: SlidePath,
    out: Out,
    model: ModelPath = DEFAULT,
    genes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Predicted genes; the strongest edges of all if not given."
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Genes that may influence them, or all; if not given, those of --genes, or all.",
        ),
    ] = None,
    where: Annotated[
        Literal["neighbors", "center"],
        typer.Option(help="With --genes: influence of the neighbors or of the center."),
    ] = "neighbors",
    region: Region = None,
    edges: Annotated[
        int, typer.Option(min=1, metavar="N", help="Without --genes: keep the N strongest edges.")
    ] = 500,
    spots: Annotated[
        int | None, typer.Option(min=1, help="Average over so many, drawn; all if not given.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also draw --genes, or the 6 that influence others the most."
        ),
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Find which gene raises or lowers which: a network of genes, .csv or .graphml.

    With --genes a .csv is the matrix of sources × genes; otherwise a row per edge, the strongest
    first: change of the prediction, in standard deviations, per standard deviation of the source.
    """
    import sagefm

    require_suffix(out, [".csv", ".graphml"])
    require_writable(out)
    require_free(out, overwrite=overwrite)
    if out.suffix == ".graphml":
        require("networkx", "perturb", "a GraphML file")
    if plot is not None:
        require_writable(plot / "gene.png")
    chosen = listed(genes)
    from_genes = "all" if sources == "all" else listed(sources)
    loaded = cached_model(model, device)
    found = sagefm.read(slide, layer=layer, slide_key=slide_key)
    try:
        table = sagefm.tl.influence(
            found, loaded, chosen, sources=from_genes, where=where, region=region, n_spots=spots,
            n_edges=edges, seed=seed, slide_key=slide_key, progress=print_progress,
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slide, error)) from error
    rows = table if chosen is None else sagefm.tl.to_edges(table, where)
    _write(table if out.suffix == ".csv" else rows, out, matrix=chosen is not None)
    drawn = _draw(rows, chosen, where, plot, overwrite) if plot is not None else 0
    n_targets = rows["target"].nunique()
    pictures = f"; {plot}: {drawn} pictures" if plot is not None else ""
    say(f"{out}: {len(rows):,} edges on {n_targets:,} genes{pictures}")


def _write(table: "pd.DataFrame", out: Path, *, matrix: bool) -> None:
    """Write the table as it is, or as a graph."""
    with replacing(out) as beside:
        if out.suffix == ".csv":
            table.to_csv(beside, index=matrix, float_format="%.6g")
            return
        import sagefm

        networkx = require("networkx", "perturb", "a GraphML file")
        networkx.write_graphml(sagefm.tl.to_graph(table), beside)


def _draw(
    edges: "pd.DataFrame", chosen: list[str] | None, where: str, folder: Path, overwrite: bool
) -> int:
    """Draw the genes that have an edge, a picture each; say how many."""
    import sagefm

    if chosen is None:
        sizes = edges["standardized"].abs().groupby(edges["source"]).sum()
        chosen = sizes.sort_values(ascending=False, kind="stable").index[:_PICTURES].tolist()
    there = {*edges["source"], *edges["target"]}
    drawn = [gene for gene in chosen if gene in there]
    for gene in drawn:
        name = gene.replace("/", "_")
        require_free(folder / f"{name}.png", overwrite=overwrite)
        sagefm.pl.influence(edges, gene, value=where, save=folder / f"{name}.png")
    return len(drawn)
