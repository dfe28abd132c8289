"""The verb perturb."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import replacing, require_free, require_writable
from sagefm._many import cached_model
from sagefm._types import Hold
from sagefm.cli._jobs import print_progress, say
from sagefm.cli._many import per_slide
from sagefm.cli._options import (
    CountTables,
    Device,
    Layer,
    ModelPath,
    Out,
    Overwrite,
    Protein,
    Region,
    Seed,
    SlideKey,
    SlidePaths,
    With,
    add_tables,
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
_ABOUT_ALL = ("sets", "slides", "refits")
"""Tables about all pairs, written beside that of the pairs."""
_LEAST_LIGANDS = 10
"""Of fewer, the tests of the set are not printed."""
_SHOWN = ["evidence", "direction", "auroc", "low", "high", "auroc_shuffled", "z", "p", "p_ligands"]


@per_slide("out", ".csv", *(f".{name}.csv" for name in _ABOUT_ALL), also={"plot": ""})
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
    signatures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="GMT or CSV (source,target,weight): the targets of --pairs are its signatures.",
        ),
    ] = None,
    levels: Annotated[
        int,
        typer.Option(
            min=2, max=1000, help="Steps from lowest to highest; sets and signatures need two."
        ),
    ] = 5,
    hold: Annotated[
        Hold,
        typer.Option(help="What stays while a ligand changes: nothing, or the attention (faster)."),
    ] = "nothing",
    refits: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Models that each lack a patient, to replicate effects."),
    ] = None,
    region: Region = None,
    with_: With = None,
    protein: Protein = None,
    counts: CountTables = None,
    details: Annotated[
        bool, typer.Option("--details", help="Write all columns, not only those that decide.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the set and its strongest pairs.")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Raise ligands in the neighbors, predict their targets, and test the effects.

    OUT.csv has a row per pair, OUT.sets.csv what all pairs say together: by the model, and by the
    slide itself. Several slides are averaged. The same command resumes a killed run.
    """
    import sagefm
    from sagefm._text import numbered

    require_suffix(out, [".csv"])
    require_writable(out)
    beside = [out.with_suffix(f".{name}.csv") for name in _ABOUT_ALL] if sets is None else []
    for written in (out, *beside):
        require_free(written, overwrite=overwrite)
    if plot is not None:
        for name in ("pairs.png", "sets.png"):
            require_writable(plot / name)
            require_free(plot / name, overwrite=overwrite)
    loaded = cached_model(model, device)
    _require_one_question(ligand, targets, pairs, sets, plot, refits)
    if with_ is not None and (sets is not None or signatures is not None):
        raise InputError("--with goes with pairs of genes, not with --sets or --signatures")
    if signatures is not None and (pairs is None or plot is not None):
        raise InputError("--signatures goes with --pairs, and not with --plot")
    raised = loaded.vocabulary.known(listed(ligand) or [])
    wanted = None if sets else _pairs(raised, targets, pairs, signatures, loaded)
    files = [] if refits is None else _models_of(refits)
    others = [sagefm.SageFM.load(file, device=device) for file in files]
    for file, other in zip(files, others, strict=True):
        if other.vocabulary != loaded.vocabulary:
            raise InputError(f"{file}: has other genes than the model; give refits of its recipe")
    weights = None if signatures is None else sagefm.tl.signatures(signatures)
    read = sagefm.tl.gene_sets(sets) if sets else {}
    found: dict[str, AnnData] = {}
    for path, name in slide_names(slides).items():
        found[name] = sagefm.read(path, layer=layer, slide_key=slide_key)
    add_tables(found, protein, counts)
    asked = found if len(found) > 1 else next(iter(found.values()))
    how: dict[str, Any] = {
        "region": region, "seed": seed, "slide_key": slide_key, "hold": hold,
        "keep": out.with_name(f"{out.name}.parts"),
        "progress": print_progress,
    }  # fmt: skip
    try:
        if wanted is None:
            table = sagefm.tl.perturb_sets(asked, loaded, raised, read, **how)
        else:
            table = sagefm.tl.perturb(
                asked, loaded, wanted, levels, signatures=weights, models=others, with_=with_, **how
            )
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    _write(table, out, with_, details=details)
    if plot is not None:
        drawn = next(iter(found.values()))
        _draw(table, drawn, loaded, hold, region, slide_key, plot, overwrite)
    passed = int((table["q"] < 0.05).sum())
    rows = numbered(len(table), "pair" if sets is None else "row")
    say(f"{out}: {rows}, {passed:,} with q < 0.05")
    if "sets" in table.attrs:
        say(_about_all(table))


def _write(table: "pd.DataFrame", out: Path, second: str | None, *, details: bool) -> None:
    """Write the table, and beside it the tables about all pairs."""
    from sagefm.tl.perturbation import LEAD, USUAL, cross_columns

    lead = (*LEAD, *cross_columns(second or USUAL))
    written = table
    if "sets" in table.attrs and not details:
        written = table[[name for name in lead if name in table]]
    with replacing(out) as beside:
        written.to_csv(beside, index=False, float_format="%.6g")
    for name in _ABOUT_ALL:
        path = out.with_suffix(f".{name}.csv")
        if name in table.attrs:
            with replacing(path) as beside:
                table.attrs[name].to_csv(beside, index=name == "slides", float_format="%.6g")
        elif "sets" in table.attrs:
            path.unlink(missing_ok=True)  # of another question


def _about_all(table: "pd.DataFrame") -> str:
    """Say what all pairs show together."""
    from sagefm._text import numbered

    sets = table.attrs["sets"]
    n_pairs, n_ligands = (int(sets[name].iloc[0]) for name in ("n_pairs", "n_ligands"))
    whole = f"\nThe set: {numbered(n_pairs, 'pair')} of {numbered(n_ligands, 'ligand')}"
    if n_ligands < _LEAST_LIGANDS:
        lines = [f"{whole}, too few to be tested as a set (about 60 are needed to tell)."]
    else:
        lines = [
            f"{whole}. AUROC: does a pair stand above the same pair with a matched gene in\nthe "
            "ligand's place (0.5: no)? p: beyond what the same genes show with shuffled partners.",
            sets[_SHOWN].to_string(index=False, float_format="{:.3g}".format),
            "Association, not signaling: forward and reversed are one number for one tissue.",
        ]
    if "slides" in table.attrs:
        between = table.attrs["slides"].stack()
        between = between[[a < b for a, b in between.index]]
        lines.append(
            (f"z of the pairs correlate {between.mean():.2f} between the slides. " if len(between)
             else "") + "Effects are a property of the model's weights: several slides replicate "
            "nothing, refits do."
        )  # fmt: skip
    if "refits" in table.attrs:
        refits = table.attrs["refits"]
        lines.append(
            f"{len(refits)} refits: AUROC {refits['auroc'].min():.3f} to "
            f"{refits['auroc'].max():.3f}; z correlate {refits['r'].mean():.2f} with their mean's; "
            f"the sign of a pair agrees in {table['agreement'].mean():.0%}"
        )
    return "\n".join(lines)


def _models_of(folder: Path) -> list[Path]:
    """Find the models in a folder of refits."""
    models = sorted(folder.glob("*.safetensors"))
    if not models:
        raise InputError(
            f"{folder}: no .safetensors file in it; make refits with sagefm pretrain --refits each"
        )
    return models


def _require_one_question(
    ligand: str | None,
    targets: str | None,
    pairs: str | None,
    sets: Path | None,
    plot: Path | None,
    refits: Path | None,
) -> None:
    """Refuse options that do not go together."""
    asked = [ligand is not None, targets is not None, pairs is not None, sets is not None]
    if asked not in ([True, True, False, False], [False, False, True, False],
                     [True, False, False, True]):  # fmt: skip
        raise InputError(
            "say what to perturb: --ligand A --targets B,C, or --ligand A --sets FILE.gmt, or "
            "--pairs liana|FILE"
        )
    if sets is not None and refits is not None:
        raise InputError("--refits goes with pairs, not with --sets; leave one of the two out")
    if sets is not None and plot is not None:
        raise InputError("--plot draws pairs, not sets; leave one of the two out")


def _pairs(
    raised: list[str],
    targets: str | None,
    pairs: str | None,
    signatures: Path | None,
    model: "SageFM",
) -> "pd.DataFrame | str":
    import sagefm

    if pairs is not None:
        # Names of signatures are no genes.
        return pairs if signatures is not None else sagefm.tl.pairs(pairs)
    return sagefm.tl.set_pairs(raised, model.vocabulary.known(listed(targets) or []))


def _draw(
    table: "pd.DataFrame",
    slide: "AnnData",
    model: "SageFM",
    hold: Hold,
    region: str | None,
    slide_key: str | None,
    folder: Path,
    overwrite: bool,
) -> None:
    """Draw the set, the strongest pairs beside their nulls, and the map of each."""
    import sagefm
    from sagefm.pp.sections import section_codes
    from sagefm.tl.perturbation import top_pairs

    pairs = list(top_pairs(table, _MAPS).itertuples())
    maps = [folder / f"{pair.ligand}_{pair.target}.png".replace("/", "_") for pair in pairs]
    for path in (folder / "sets.png", *maps):
        require_free(path, overwrite=overwrite)
    if table.attrs.get("sets") is not None:
        sagefm.pl.perturbation_sets(table, save=folder / "sets.png")
    sagefm.pl.perturbation(table, save=folder / "pairs.png")
    highest = sagefm.tl.Change("quantile", 1.0)
    for pair, path in zip(pairs, maps, strict=True):
        sagefm.tl.respond(
            slide, model, {str(pair.ligand): highest}, [str(pair.target)], region=region,
            slide_key=slide_key, hold=hold, key_added=path.stem,
        )  # fmt: skip
    drawn = slide[section_codes(slide, slide_key) == 0]  # the first of several in one file
    for pair, path in zip(pairs, maps, strict=True):
        sagefm.pl.response(
            drawn, str(pair.target), key=path.stem, q=float(str(pair.q)),
            title=f"{pair.target}, {pair.ligand} at its highest in the neighbors", save=path,
        )  # fmt: skip
