"""What several verbs share: their arguments and options, and how they name files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SlidePath = Annotated[
    str, typer.Argument(metavar="SLIDE", help="Space Ranger folder, .h5ad or .zarr.")
]
SlidePaths = Annotated[
    list[str], typer.Argument(metavar="SLIDES...", help="Space Ranger folders, .h5ad or .zarr.")
]
ModelPath = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Model file (.safetensors), its address, or that of the package."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Layer = Annotated[
    str | None, typer.Option(help="Where the raw counts are, if not in X or layers['counts'].")
]
SlideKey = Annotated[
    str | None, typer.Option(help="obs column that distinguishes the slides of one file.")
]
Region = Annotated[
    str | None,
    typer.Option(metavar="KEY=VALUE", help="Only spots whose obs column KEY is VALUE."),
]
Seed = Annotated[int, typer.Option(min=0, help="Source of all chance.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; the best there is if not given.")]


def require_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a path that does not end as it must."""
    if path.suffix not in suffixes:
        raise InputError(f"{path}: give it a name that ends with {' or '.join(suffixes)}")


def slide_names(slides: Sequence[str]) -> dict[str, str]:
    """Name each slide after its file, or after its sample folder."""
    names: dict[str, str] = {}
    for path in slides:
        place = Path(path).resolve()
        if place.name == "outs":
            place = place.parent
        name = place.name.removesuffix(".h5ad").removesuffix(".zarr")
        if name in names.values():
            raise InputError(
                f"{path}: a second slide called {name!r}; give every slide a name of its own"
            )
        names[path] = name
    return names


def listed(names: str | None) -> list[str] | None:
    """Read a list of genes."""
    if names is None:
        return None
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise InputError(f"{names!r}: names no gene; write A,B")
    return found


def is_corpus(path: str) -> bool:
    """Say whether a path is the folder of a corpus."""
    return (Path(path) / "corpus.json").is_file()


def placed(path: str, error: InputError) -> str:
    """Name the slide in an error, once."""
    named = str(error).startswith((path, str(Path(path))))
    return str(error) if named else f"{path}: {error}"


def by_name(paths: Sequence[str]) -> dict[str, str]:
    """Give the path of each slide under its name."""
    return {name: path for path, name in slide_names(paths).items()}


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
