"""Arguments and options of several verbs, and helpers for file names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm import _files, _spatialdata
from sagefm._errors import InputError
from sagefm._text import few

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MAX_SEED = 2**32 - 1
"""The largest seed that every library takes."""

SlidePath = Annotated[
    str, typer.Argument(metavar="SLIDE", help="Space Ranger folder, .h5ad or .zarr.")
]
SlidePaths = Annotated[
    list[str], typer.Argument(metavar="SLIDES...", help="Space Ranger folders, .h5ad or .zarr.")
]
ModelPath = Annotated[
    str,
    typer.Option("--model", "-m", help="Model file (.safetensors), its address, or default."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write the result.")]
Layer = Annotated[
    str | None, typer.Option(help="Where the raw counts are, if not in X or layers['counts'].")
]
SlideKey = Annotated[
    str | None, typer.Option(help="obs column that distinguishes the slides of one file.")
]
With = Annotated[
    str | None,
    typer.Option("--with", metavar="NAME", help="A second modality of the slides: protein, …"),
]
Region = Annotated[
    str | None,
    typer.Option(metavar="KEY=VALUE", help="Only spots whose obs column KEY is VALUE."),
]
Adapt = Annotated[
    bool, typer.Option(help="Adapt the model to the slide before it predicts measured genes.")
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random numbers.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, …; CUDA, if available, when not given.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="For several slides: processes here; half the cores if not given."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A dask cluster to use instead: tcp://host:8786."),
]
Protein = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="Counts of proteins on the same spots, if SLIDE has none (.h5ad, .csv, .tsv, .h5).",
    ),
]
CountTables = Annotated[
    list[str] | None,
    typer.Option(
        "--counts", metavar="NAME=TABLE", help="Other counts on the same spots; may be repeated."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist and were not made from SLIDE.")
]


def require_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raise an error if a path has another suffix."""
    if path.suffix not in suffixes:
        raise InputError(f"{path}: give it a name that ends with {' or '.join(suffixes)}")


def require_result(path: Path) -> None:
    """Raise an error if a slide cannot be written to a path: an .h5ad, or a SpatialData."""
    if path.suffix != ".h5ad" and not is_spatialdata(path):
        raise InputError(
            f"{path}: give it a name that ends with .h5ad, or name a SpatialData that exists"
        )
    _files.require_result(path)


def is_spatialdata(path: Path) -> bool:
    """Check whether a path is a SpatialData, or a table in one."""
    return any(map(_spatialdata.is_spatialdata, (path, path.absolute().parent.parent)))


def slide_names(slides: Sequence[str]) -> dict[str, str]:
    """Name each slide after its file, or after its sample folder."""
    names: dict[str, str] = {}
    for path in slides:
        place = Path(path).resolve()
        if place.name == "outs":
            place = place.parent
        if place.parent.name == "tables":  # of a SpatialData: sample.zarr/tables/square_008um
            sample = place.parent.parent.name.removesuffix(".zarr")
            place = place.with_name(f"{sample}_{place.name}")
        name = place.name.removesuffix(".h5ad").removesuffix(".zarr")
        if name in names.values():
            raise InputError(f"{path}: a second slide called {name!r}; rename one of them")
        names[path] = name
    return names


def listed(names: str | None) -> list[str] | None:
    """Split a list of genes."""
    if names is None:
        return None
    genes = [name.strip() for name in names.split(",") if name.strip()]
    if not genes:
        raise InputError(f"{names!r}: has no gene; write A,B")
    return genes


def tables_of(protein: Path | None, counts: Sequence[str] | None) -> dict[str, str]:
    """Map the names of the options ``--protein`` and ``--counts`` to their tables."""
    tables = {} if protein is None else {"protein": str(protein)}
    for option in counts or []:
        name, equals, path = map(str.strip, option.partition("="))
        if not (name and equals and path):
            raise InputError(f"--counts {option}: write NAME=TABLE, such as genera=genera.csv")
        if name in tables:
            raise InputError(f"--counts {option}: a second table called {name!r}; rename one")
        tables[name] = path
    return tables


def add_tables(
    slides: "Mapping[str, AnnData]", protein: Path | None, counts: Sequence[str] | None
) -> None:
    """Add the tables of these options to slides."""
    from sagefm.pp.add_counts import add_to_each

    add_to_each(slides, tables_of(protein, counts))


def require_used(tables: Mapping[str, str], with_: str | None) -> None:
    """Raise an error for tables that nothing uses."""
    if tables and with_ is None:
        raise InputError(f"{few(tables)}: is not used; add --with {next(iter(tables))}")


def is_corpus(path: str) -> bool:
    """Check whether a path is the folder of a corpus."""
    return (Path(path) / "corpus.json").is_file()


def placed(path: str, error: InputError) -> str:
    """Write an error as text that names the slide once."""
    named = str(error).startswith((path, str(Path(path))))
    return str(error) if named else f"{path}: {error}"


def by_name(paths: Sequence[str]) -> dict[str, str]:
    """Map the name of each slide to its path."""
    return {name: path for path, name in slide_names(paths).items()}


def results_of(slides: Sequence[str], out: Path) -> dict[str, tuple[str, Path]]:
    """Choose where each slide is written: its name → the slide, and a file that can be written."""
    named = by_name(slides)
    if len(named) == 1:
        require_result(out)
        targets = {name: (path, out) for name, path in named.items()}
    elif out.suffix or out.is_file():
        raise InputError(f"{out}: name a folder for {len(named)} slides (no suffix)")
    else:
        targets = {name: (path, out / f"{name}.h5ad") for name, path in named.items()}
    for _, target in targets.values():
        _files.require_result(target)
    return targets


def facts_of(path: Path) -> "pd.DataFrame":
    """Read a table with a row per slide."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if "slide" not in table or table["slide"].duplicated().any():
        raise InputError(f"{path}: needs a column slide that names each slide once")
    return table.set_index("slide")
