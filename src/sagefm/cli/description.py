"""The command ``sagefm describe``."""

from pathlib import Path
from typing import Annotated

import typer

from sagefm._errors import InputError
from sagefm._files import require_free, require_writable
from sagefm.cli._options import (
    Layer,
    Out,
    Overwrite,
    Seed,
    SlideKey,
    SlidePaths,
    by_name,
    facts_of,
    listed,
    placed,
)

_FILES = ("names.csv", "markers.png")


def describe(
    slides: SlidePaths,
    out: Out,
    key: Annotated[str, typer.Option(help="obs column with the domains.")] = "sagefm_domain",
    patient_key: Annotated[
        str | None, typer.Option(help="obs (or --table) column with the patient.")
    ] = None,
    condition_key: Annotated[
        str | None, typer.Option(help="obs (or --table) column with the condition.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV with a row per slide: slide, patient, condition, …")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Groups of marker sets, such as general,breast."),
    ] = None,
    gene_sets: Annotated[
        Path | None, typer.Option(metavar="GMT", help="Also score these gene sets (decoupler).")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    overwrite: Overwrite = False,
) -> None:
    """Describe domains: markers, names, contacts, shapes and fractions, as tables in OUT."""
    import sagefm
    from sagefm._extras import require

    if out.suffix or out.is_file():
        raise InputError(f"{out}: name a folder (no suffix); several tables are written")
    require_writable(out / _FILES[0])
    require_free(out, overwrite=overwrite)
    groups = listed(names)
    if groups is not None:
        sagefm.pp.marker_sets(groups)
    if gene_sets is not None:
        require("decoupler", "describe", "scoring pathways")
        sagefm.tl.gene_sets(gene_sets)
    facts = facts_of(table) if table else None
    loaded = {}
    for name, path in by_name(slides).items():
        slide = loaded[name] = sagefm.read(path, layer=layer, slide_key=slide_key)
        if key not in slide.obs:
            columns = ", ".join(map(str, slide.obs.columns[:8])) or "nothing"
            raise InputError(f"{path}: obs has no {key!r}, but {columns}; name one with --key")
        if facts is not None:
            if name not in facts.index:
                raise InputError(f"{table}: has no row for {name}; add one")
            for column, value in facts.loc[name].items():
                slide.obs[column] = value
    try:
        described = sagefm.tl.describe(
            loaded, key, patient_key=patient_key, condition_key=condition_key, names=groups,
            network=gene_sets, seed=seed, slide_key=slide_key,
        )  # fmt: skip
    except InputError as error:
        raise InputError(placed(slides[0], error) if len(slides) == 1 else str(error)) from error
    described.save(out)
    sagefm.pl.domain_markers(described, save=out / "markers.png")
    sagefm.pl.contacts(described, save=out / "contacts.png")
    for row in described.names.itertuples():
        genes = f" ({row.genes})" if isinstance(row.genes, str) else ""
        typer.echo(f"{row.domain}: {row.name}{genes}")
