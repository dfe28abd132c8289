"""The verb perturb."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import replacing, require_writable
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Seed,
    SlideKey,
    SlidePaths,
    listed,
    placed,
    require_suffix,
    slide_names,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sagefm.model import SageFM

_MAPS = 6
"""Pairs that are drawn on the tissue."""


def perturb(
    slides: SlidePaths,
    model: ModelPath,
    out: Out,
    ligand: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Genes to raise in the neighbors.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Genes to read in the center.")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="liana, cellphonedb, cellchat or a CSV with ligand, target; not --ligand.",
        ),
    ] = None,
    levels: Annotated[int, typer.Option(min=2, help="Steps from lowest to highest.")] = 5,
    region: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE", help="Only spots whose obs column KEY is VALUE."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the strongest pairs.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Raise ligands around every spot, read their targets in it, and test the effect: OUT.csv.

    Several slides are averaged. The same command goes on where a killed run stopped.
    """
    import sagefm

    require_suffix(out, [".csv"])
    require_writable(out)
    if plot is not None:
        require_writable(plot / "pairs.png")
    loaded = sagefm.SageFM.load(model, device=device)
    wanted = _pairs(ligand, targets, pairs, loaded)
    found: dict[str, AnnData] = {}
    for path, name in slide_names(slides).items():
        found[name] = sagefm.read(path, layer=layer, slide_key=slide_key)
    asked = found if len(found) > 1 else next(iter(found.values()))
    keep = out.with_name(f"{out.name}.parts")
    try:
        table = sagefm.tl.perturb(
            asked, loaded, wanted, levels, region=region, seed=seed, slide_key=slide_key,
            keep=keep, progress=lambda line: typer.echo(line, err=True),
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    with replacing(out) as beside:
        table.to_csv(beside, index=False, float_format="%.6g")
    if plot is not None:
        _draw(table, next(iter(found.values())), loaded, region, slide_key, plot)
    passed = int((table["q"] < 0.05).sum())
    typer.echo(f"{out}: {len(table):,} pairs, {passed:,} with q < 0.05")


def _pairs(
    ligand: str | None, targets: str | None, pairs: str | None, model: "SageFM"
) -> "pd.DataFrame":
    import sagefm

    if (pairs is None) == (ligand is None) or (ligand is None) != (targets is None):
        raise InputError("say what to perturb: --ligand A --targets B,C or --pairs liana|FILE")
    if pairs is not None:
        return sagefm.tl.pairs(pairs)
    table = sagefm.tl.set_pairs(listed(ligand) or [], listed(targets) or [])
    # Names that were typed are not left out in silence, as those of a resource are.
    model.vocabulary.positions([*table["ligand"].unique(), *table["target"].unique()])
    return table


def _draw(
    table: "pd.DataFrame",
    slide: "AnnData",
    model: "SageFM",
    region: str | None,
    slide_key: str | None,
    folder: Path,
) -> None:
    """Draw the strongest pairs beside their nulls, and the first of them on the first slide."""
    import sagefm

    sagefm.pl.perturbation(table, save=folder / "pairs.png")
    order = table.assign(size=-table["z"].abs()).sort_values(["q", "p", "size"], kind="stable")
    highest = sagefm.tl.Change("quantile", 1.0)
    for pair in order.head(_MAPS).itertuples():
        sagefm.tl.respond(
            slide, model, {str(pair.ligand): highest}, [str(pair.target)], region=region,
            slide_key=slide_key,
        )  # fmt: skip
        name = f"{pair.ligand}_{pair.target}".replace("/", "_")
        sagefm.pl.response(
            slide, str(pair.target), title=f"{pair.target}, {pair.ligand} at its highest around",
            save=folder / f"{name}.png",
        )  # fmt: skip
