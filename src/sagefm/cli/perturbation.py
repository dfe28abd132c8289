"""The verb perturb."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Region,
    Seed,
    SlideKey,
    SlidePaths,
    listed,
    placed,
    print_progress,
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
    out: Out,
    model: ModelPath = DEFAULT,
    ligand: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Genes to raise in the neighbors.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Genes to predict in the center.")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="liana, cellphonedb, cellchat or a CSV with ligand, target; not --ligand.",
        ),
    ] = None,
    sets: Annotated[
        Path | None,
        typer.Option(
            metavar="GMT", help="Gene sets to predict with --ligand, in place of --targets."
        ),
    ] = None,
    levels: Annotated[
        int,
        typer.Option(min=2, max=1000, help="Steps from lowest to highest; sets need only the two."),
    ] = 5,
    region: Region = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the strongest pairs.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Raise ligands in the neighbors, predict their targets, and test the effect: OUT.csv.

    Several slides are averaged. The same command resumes a killed run.
    """
    import sagefm
    from sagefm._text import numbered

    require_suffix(out, [".csv"])
    require_writable(out)
    require_free(out, overwrite=overwrite)
    if plot is not None:
        require_writable(plot / "pairs.png")
        require_free(plot / "pairs.png", overwrite=overwrite)
    loaded = sagefm.SageFM.load(model, device=device)
    _require_one_question(ligand, targets, pairs, sets, plot)
    raised = loaded.vocabulary.known(listed(ligand) or [])
    wanted = None if sets else _pairs(raised, targets, pairs, loaded)
    read = sagefm.tl.gene_sets(sets) if sets else {}
    found: dict[str, AnnData] = {}
    for path, name in slide_names(slides).items():
        found[name] = sagefm.read(path, layer=layer, slide_key=slide_key)
    asked = found if len(found) > 1 else next(iter(found.values()))
    how: dict[str, Any] = {
        "region": region, "seed": seed, "slide_key": slide_key,
        "keep": out.with_name(f"{out.name}.parts"),
        "progress": print_progress,
    }  # fmt: skip
    try:
        if wanted is None:
            table = sagefm.tl.perturb_sets(asked, loaded, raised, read, **how)
        else:
            table = sagefm.tl.perturb(asked, loaded, wanted, levels, **how)
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    with replacing(out) as beside:
        table.to_csv(beside, index=False, float_format="%.6g")
    if plot is not None:
        _draw(table, next(iter(found.values())), loaded, region, slide_key, plot, overwrite)
    passed = int((table["q"] < 0.05).sum())
    rows = numbered(len(table), "pair" if sets is None else "row")
    typer.echo(f"{out}: {rows}, {passed:,} with q < 0.05")


def _require_one_question(
    ligand: str | None,
    targets: str | None,
    pairs: str | None,
    sets: Path | None,
    plot: Path | None,
) -> None:
    """Refuse options that do not go together."""
    asked = [ligand is not None, targets is not None, pairs is not None, sets is not None]
    if asked not in ([True, True, False, False], [False, False, True, False],
                     [True, False, False, True]):  # fmt: skip
        raise InputError(
            "say what to perturb: --ligand A --targets B,C, or --ligand A --sets FILE.gmt, or "
            "--pairs liana|FILE"
        )
    if sets is not None and plot is not None:
        raise InputError("--plot draws pairs, not sets; leave one of the two out")


def _pairs(
    raised: list[str], targets: str | None, pairs: str | None, model: "SageFM"
) -> "pd.DataFrame":
    import sagefm

    if pairs is not None:
        return sagefm.tl.pairs(pairs)
    return sagefm.tl.set_pairs(raised, model.vocabulary.known(listed(targets) or []))


def _draw(
    table: "pd.DataFrame",
    slide: "AnnData",
    model: "SageFM",
    region: str | None,
    slide_key: str | None,
    folder: Path,
    overwrite: bool,
) -> None:
    """Draw the strongest pairs beside their nulls, and the first of them on the first slide."""
    import sagefm
    from sagefm.pp.sections import section_codes
    from sagefm.tl.perturbation import top_pairs

    first = section_codes(slide, slide_key) == 0  # of several in one file
    sagefm.pl.perturbation(table, save=folder / "pairs.png")
    highest = sagefm.tl.Change("quantile", 1.0)
    for pair in top_pairs(table, _MAPS).itertuples():
        sagefm.tl.respond(
            slide, model, {str(pair.ligand): highest}, [str(pair.target)], region=region,
            slide_key=slide_key,
        )  # fmt: skip
        name = f"{pair.ligand}_{pair.target}".replace("/", "_")
        require_free(folder / f"{name}.png", overwrite=overwrite)
        sagefm.pl.response(
            slide[first], str(pair.target),
            title=f"{pair.target}, {pair.ligand} at its highest in the neighbors",
            save=folder / f"{name}.png",
        )  # fmt: skip
