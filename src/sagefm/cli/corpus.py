"""The commands ``sagefm corpus build`` and ``sagefm corpus info``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError
from sagefm._text import few, numbered
from sagefm.cli._options import Layer, SlideKey, slide_names
from sagefm.cli._parsing import Verb, VerbGroup

if TYPE_CHECKING:
    import pandas as pd

    from sagefm.pretrain import Corpus

app = typer.Typer(cls=VerbGroup, help="Build and inspect a corpus: many aligned slides on disk.")

_WIDTH = 40
"""Maximal width of a column; names of HEST patients contain the title of their dataset."""


@app.command(cls=Verb)
def build(
    slides: Annotated[
        list[str],
        typer.Argument(
            metavar="SLIDES...",
            help="Space Ranger folders, .h5ad or .zarr; or the folder of a HEST-1k download.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="CORPUS", help="Folder to create or to add to.")
    ],
    genes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|N",
            help="Of a new corpus: a gene list, or how many of the most detected; all by default.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="CSV: slide and any of patient, dataset, organ, disease, technology, license, "
            "source."
        ),
    ] = None,
    patient_key: Annotated[str, typer.Option(help="obs column with the patient.")] = "patient",
    slide_key: SlideKey = None,
    layer: Layer = None,
    organ: Annotated[
        list[str] | None, typer.Option(help="Only slides of this organ (can be repeated).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace slides that are in the corpus.")] = False,
) -> None:
    """Create a corpus of slides, or add slides to one; slides that it has already are skipped."""
    from sagefm.pretrain import corpus as corpora

    paths, facts = _inputs(slides, table)
    if organ:
        paths, facts = _of_organs(paths, facts, organ)
    started = time.perf_counter()
    built = corpora.build(
        paths,
        out,
        genes=int(genes) if genes and genes.isdecimal() else genes,
        facts=facts,
        slide_key=slide_key,
        patient_key=patient_key,
        layer=layer,
        workers=workers,
        overwrite=overwrite,
        progress=typer.echo,
    )
    seconds = time.perf_counter() - started
    if built.added or not built.failed:
        corpus = corpora.Corpus.open(out)
        speed = int(corpus.table.loc[built.added, "spots"].sum()) / seconds
        pace = f"; {speed:,.0f} spots/s" if built.added else ""
        typer.echo(f"{out}: {built}; {_size(corpus)}{pace}")
    if built.failed:
        name, reason = next(iter(built.failed.items()))
        n_slides = len(built.added) + len(built.skipped) + len(built.failed)
        raise InputError(
            f"{len(built.failed)} of {n_slides} slides were left out of {out}; "
            f"the first: {name}: {reason}"
        )


@app.command(cls=Verb)
def info(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all data with their checksums.")
    ] = False,
) -> None:
    """Print the slides of a corpus, and totals by organ."""
    from sagefm.pretrain.corpus import Corpus

    opened = Corpus.open(corpus)
    table = opened.table
    words = table[["patient", "organ", "disease", "technology", "license"]]
    words = words.loc[:, (words != "").any()]
    numbers = table[["spots", "genes", "depth"]]
    short = table["checksum"].str[:8].to_frame("checksum")
    _print_table(words.join(short).join(numbers).reset_index())
    organ = table["organ"].replace("", "unknown")
    by_organ = table.groupby(organ).agg(
        slides=("spots", "size"), patients=("patient", "nunique"), spots=("spots", "sum")
    )
    typer.echo()
    _print_table(by_organ.sort_values("spots", ascending=False).reset_index())
    typer.echo()
    patients = table["patient"].nunique()
    typer.echo(
        f"{corpus}: {len(table):,} slides of {patients:,} patients, {_size(opened)}; "
        f"{len(opened.vocabulary):,} genes, neighborhoods of {opened.n_neighbors} spots"
    )
    if verify:
        faults = opened.verify()
        for fault in faults:
            typer.echo(f"fault: {fault}")
        if faults:
            raise InputError(f"{corpus}: {len(faults)} of {len(table)} slides are damaged")
        earlier = opened.without_checksums()
        meaning = "anndata reads it, and its files are what was written"
        if earlier:
            meaning = (
                "anndata reads it, and its content is what was written; an earlier sagefm added "
                f"{numbered(len(earlier), 'slide')} ({few(earlier)}) without checksums of the files"
            )
        typer.echo(f"{corpus}: every slide is intact: {meaning}")


def _inputs(
    slides: Sequence[str], table: Path | None
) -> tuple[dict[str, Path], "pd.DataFrame | None"]:
    """Name the slides, those of HEST downloads one by one, and collect their facts."""
    import pandas as pd

    from sagefm.pretrain.corpus.facts import read_table
    from sagefm.pretrain.hest import hest_slides, is_hest

    downloads = [path for path in slides if is_hest(path)]
    files = [path for path in slides if path not in downloads]
    paths = {name: Path(path) for path, name in slide_names(files).items()}
    tables = [read_table(table)] if table else []
    for root in downloads:
        samples, facts = hest_slides(root)
        if twice := paths.keys() & samples.keys():
            raise InputError(f"{root}: a second slide called {min(twice)!r}; rename one of them")
        paths |= samples
        tables.append(facts)
    if not tables:
        return paths, None
    # The table of the user takes precedence over the download: the first of two rows is kept.
    joined = pd.concat(tables).replace("", pd.NA).groupby("slide", sort=False).first()
    return paths, joined.reset_index()


def _of_organs(
    paths: dict[str, Path], facts: "pd.DataFrame | None", organs: Sequence[str]
) -> tuple[dict[str, Path], "pd.DataFrame"]:
    """Keep the slides of some organs."""
    if facts is None or "organ" not in facts:
        raise InputError("--organ: organs are not known; give a --table with a column organ")
    facts = facts[facts["slide"].isin(paths)]
    organ = facts["organ"].fillna("").str.strip()
    available = {name.lower() for name in organ}
    unknown = [name for name in organs if name.lower() not in available]
    if unknown:
        listed = ", ".join(sorted({name for name in organ if name}))
        raise InputError(f"--organ: no slide is of {unknown[0]!r}; the organs are {listed}")
    kept = facts[organ.str.lower().isin([name.lower() for name in organs])]
    return {name: paths[name] for name in kept["slide"]}, kept


def _size(corpus: "Corpus") -> str:
    spots, nonzeros = int(corpus.table["spots"].sum()), int(corpus.table["nonzeros"].sum())
    return (
        f"{spots:,} spots, {nonzeros:,} nonzeros, "
        f"{corpus.n_bytes / max(nonzeros, 1):.2f} bytes per nonzero"
    )


def _print_table(table: "pd.DataFrame") -> None:
    """Print a table with aligned columns: as wide as the terminal, or in full in a pipe."""
    import sys

    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in table:
        is_number = table[column].dtype.kind in "iuf"
        drawn.add_column(
            str(column),
            justify="right" if is_number else "left",
            no_wrap=True,
            max_width=_WIDTH,
        )
    for row in table.itertuples(index=False):
        drawn.add_row(*(v if isinstance(v, str) else f"{v:,.0f}" for v in row))
    Console(width=None if sys.stdout.isatty() else 1000, highlight=False, markup=False).print(drawn)
