"""The command ``sagefm outcome``."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import require_free, require_writable, writing
from sagefm._strays import is_stray, temporary_name
from sagefm.cli._jobs import print_progress
from sagefm.cli._options import (
    Device,
    Layer,
    ModelPath,
    Overwrite,
    Seed,
    SlideKey,
    SlidePaths,
    by_name,
)

if TYPE_CHECKING:
    from sagefm.tl import Outcome
    from sagefm.tl.patients import SlideSource

Kind = Literal["classes", "ordinal", "number", "survival"]

_TABLES = (
    "scores", "patients", "features", "curve", "permuted", "spots", "domains", "confounding",
    "maps/slides",
)  # fmt: skip
_FILES = ("summary.txt", "outcome.png", *(f"{name}.csv" for name in _TABLES))
_MAPS = "maps/slide_*.png"
_BESIDE = ".outcome-"


def outcome(
    slides: SlidePaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the result.")],
    table: Annotated[
        Path, typer.Option(metavar="CSV", help="A row per patient: patient, outcome, ….")
    ],
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of --table: a class, level or number.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of --table: time to event or censoring.")
    ] = None,
    event: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of --table: 1 event, 0 censored.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Of the outcome; found out if not given.")
    ] = None,
    clinical: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns known without slides, such as age,stage."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of --table: hospital or batch.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="obs column with labels that all slides share; repeat for more."),
    ] = None,
    gene_sets: Annotated[
        Path | None, typer.Option(metavar="GMT", help="Gene programs: GMT or CSV.")
    ] = None,
    patient_key: Annotated[
        str, typer.Option(help="Column with the patient, of obs and --table.")
    ] = "patient",
    model: ModelPath = DEFAULT,
    permutations: Annotated[
        int, typer.Option(min=19, max=100_000, help="Of patients, for p; 19 at least.")
    ] = 999,
    suppress_below: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Write fewer patients as <N.")
    ] = 0,
    maps: Annotated[bool, typer.Option(help="Draw contributions on every section.")] = True,
    seed: Seed = 0,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Test what slides say of patients (response, stage, survival): tables and pictures in OUT.

    sagefm outcome *.h5ad --table patients.csv --target response --clinical age,stage -o result

    sagefm outcome *.h5ad --table patients.csv --time months --event dead -o result

    Patients are predicted by fits to others. Clinical columns, pseudobulk and permuted
    patients are what slides are compared with. scores.csv and summary.txt have the result;
    patients.csv, spots.csv and maps/slides.csv have names of patients or slides: they are
    not for others. Pictures have no names.

    For research only: not for diagnosis or treatment decisions.
    """
    import sagefm
    from sagefm.tl.patients import SlideSource

    wanted = _target(target, time, event)
    if out.suffix or out.is_file():
        raise InputError(f"{out}: name a folder (no suffix); several files are written")
    _remove_strays(out)
    require_writable(out / "summary.txt")
    require_free(out, overwrite=overwrite)
    if table.resolve() in [(out / name).resolve() for name in _FILES]:
        raise InputError(f"{table}: would be overwritten by the result; choose another folder")
    if gene_sets is not None:
        sagefm.tl.signatures(gene_sets)
    named = by_name(slides)
    result = sagefm.tl.outcome(
        named, table, wanted, model=sagefm.SageFM.load(model, device=device), kind=kind,
        clinical=_split(clinical), site=site, keys=key or None, gene_sets=gene_sets,
        patient_key=patient_key, slide_key=slide_key, layer=layer, n_permutations=permutations,
        seed=seed, progress=print_progress,
    )  # fmt: skip
    source = SlideSource(named, layer, slide_key, patient_key, None) if maps else None
    with _filled(out) as beside:
        result.save(beside, suppress_below=suppress_below, overwrite=True)
        _draw(result, source, beside, suppress_below)
    typer.echo(f"{out}: {result}")


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _target(target: str | None, time: str | None, event: str | None) -> str | tuple[str, str]:
    """Get the column of the outcome, or those of time and event."""
    if target is not None and time is None and event is None:
        return target
    if target is None and time is not None and event is not None:
        return time, event
    raise InputError("name the outcome: --target COLUMN, or --time COLUMN and --event COLUMN")


def _draw(
    result: "Outcome", source: "SlideSource | None", folder: Path, suppress_below: int
) -> None:
    """Draw the result, and the map of each slide: named by its number."""
    import pandas as pd

    import sagefm

    sagefm.pl.outcome(result, suppress_below=suppress_below, save=folder / "outcome.png")
    names = set(result.spots["slide"])
    numbers = {}
    for one in source or ():
        if one.name in names:
            numbers[one.number] = one.name
            file = folder / "maps" / f"slide_{one.number:03}.png"
            sagefm.pl.outcome_map({one.name: one.slide}, result, save=file)
    if numbers:
        names_of = pd.DataFrame({"number": numbers.keys(), "slide": numbers.values(), "note": ""})
        names_of.loc[0, "note"] = result.note
        names_of.to_csv(folder / "maps" / "slides.csv", index=False)


def _remove_strays(folder: Path) -> None:
    """Remove what killed processes have left: it has names of patients."""
    for path in folder.glob(f"{_BESIDE}*"):
        if is_stray(path, path.name.removeprefix(_BESIDE)):
            rmtree(path, ignore_errors=True)


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """Fill a folder at the end only: what fails before leaves it as it is."""
    with writing(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with TemporaryDirectory(prefix=f"{_BESIDE}{temporary_name()}.", dir=folder) as name:
                beside = Path(name)
                yield beside
                files = sorted(path for path in beside.rglob("*") if path.is_file())
                for stale in (*(folder / name for name in _FILES), *folder.glob(_MAPS)):
                    stale.unlink(missing_ok=True)
                for file in files:
                    target = folder / file.relative_to(beside)
                    target.parent.mkdir(exist_ok=True)
                    file.replace(target)
        finally:
            if made:
                with suppress(OSError):  # it holds the result
                    folder.rmdir()
