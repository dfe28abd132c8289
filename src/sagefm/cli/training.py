"""The command ``sagefm pretrain``."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagefm._errors import InputError, logger
from sagefm._files import replacing, require_writable
from sagefm._progress import logger as progress_logger
from sagefm._progress import stage
from sagefm.cli._options import (
    MAX_SEED,
    Device,
    Layer,
    Out,
    SlideKey,
    is_corpus,
    require_suffix,
    slide_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm import SageFM
    from sagefm.pretrain import Corpus, TrainingResult


def pretrain(
    slides: Annotated[
        list[str],
        typer.Argument(
            metavar="SLIDES...|CORPUS", help="Space Ranger folders, .h5ad, .zarr; or one corpus."
        ),
    ],
    out: Out,
    recipe: Annotated[
        str, typer.Option(help="published, small, context, atlas, or the path of a TOML file.")
    ] = "published",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ENTRY=VALUE", help="Replace an entry of the recipe."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns slide and patient; and organ, technology, source, license, …, "
            "which the model records."
        ),
    ] = None,
    patient_key: Annotated[
        str | None, typer.Option(help="obs column with the patient (data.patient_key).")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(min=1, help="Leave this fold of the slides out, to test on (data.fold)."),
    ] = None,
    refits: Annotated[
        str | None,
        typer.Option(
            metavar="each|N",
            help="Train several models into the folder OUT: each without one patient, or each "
            "without one of N groups of patients. Models that are finished are skipped.",
        ),
    ] = None,
    layer: Layer = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the run (train.seed).")
    ] = None,
    slide_key: SlideKey = None,
    device: Device = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes, each with a device or a fraction of the cores.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and gather batches.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that ended.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT and its run if they exist.")] = False,
) -> None:
    """Train a model: writes OUT, and its loss curve next to it as .csv and .png.

    The run is stored in a folder next to OUT with the suffix .run: its state for --resume, the
    best model so far, and logs (metrics.csv; tensorboard --logdir). With --refits OUT is a folder,
    and a command that was killed continues when it is started again.
    """
    import sagefm
    from sagefm.pretrain.run import is_first_process

    first, run = is_first_process(), out.with_suffix(".run")
    n_refits = _number_of_refits(refits, out, devices) if refits else None
    if not refits:
        require_suffix(out, [".safetensors"])
    if first and not refits:
        _require_free(out, run, patients, resume=resume, overwrite=overwrite)
    if not first:
        logger.setLevel("ERROR")  # the first process logs for all
        stage("")
        progress_logger.setLevel("ERROR")
    changes = list(overrides or [])
    changes += [f"data.patient_key={json.dumps(patient_key)}"] if patient_key else []
    changes += [f"train.seed={seed}"] if seed is not None else []
    changes += [f"data.fold={fold}"] if fold is not None else []
    loaded = sagefm.pretrain.Recipe.load(recipe, changes)
    table, facts = _read_patients(patients) if patients else (None, None)
    source = _source(slides, layer, slide_key, patients)
    interactive = first and sys.stderr.isatty()
    if first:
        logger.setLevel("WARNING" if interactive else "INFO")  # a progress bar, or lines in a log
    if refits:
        for name, model in sagefm.pretrain.refits(
            source, loaded, n_refits, patients=table, facts=facts, slide_key=slide_key,
            device=device, folder=out, overwrite=overwrite, workers=workers, progress=interactive,
        ):  # fmt: skip
            best = f"best epoch {model.provenance['best_epoch']}"
            typer.echo(f"{out / name}.safetensors: {model}; {best}, {_losses(model)}")
        return
    try:
        result = sagefm.pretrain.fit(
            source, loaded, patients=table, facts=facts, slide_key=slide_key, device=device,
            devices=devices, folder=run, resume=resume, workers=workers, progress=interactive,
        )  # fmt: skip
    except RuntimeError:
        if first:
            raise
        raise typer.Exit(1) from None  # another process ended, and the first reports why
    if first:
        _write(result, out)


def _number_of_refits(refits: str, out: Path, devices: int) -> int | None:
    """Read how many models to train, None for one per patient; refuse what does not go with it."""
    if out.suffix or out.is_file():
        raise InputError(f"{out}: name a folder for the refits (no suffix)")
    if devices > 1:
        raise InputError("--refits trains in one process; leave out --devices")
    if refits == "each":
        return None
    if not refits.isdecimal():
        raise InputError(f"--refits {refits}: write each, or a number of groups of patients")
    return int(refits)


def _require_free(
    out: Path, run: Path, patients: Path | None, *, resume: bool, overwrite: bool
) -> None:
    """Refuse to overwrite a model, or a run that could be resumed."""
    for path in (out, out.with_suffix(".csv"), out.with_suffix(".png")):
        require_writable(path)
        ours = patients and path.exists() and path.samefile(patients)
        if path.exists() and (ours or not (overwrite or resume)):
            raise InputError(f"{path}: exists already; choose another OUT, or add --overwrite")
    if (run / "last.safetensors").exists() and not (resume or overwrite):
        raise InputError(
            f"{run}: holds a run that has not finished; add --resume to continue it, or "
            "--overwrite to start again"
        )


def _source(
    slides: Sequence[str], layer: str | None, slide_key: str | None, patients: Path | None
) -> "Mapping[str, AnnData] | Corpus":
    import sagefm

    corpora = [path for path in slides if is_corpus(path)]
    if not corpora:
        names = slide_names(slides)
        return {
            name: sagefm.read(path, layer=layer, slide_key=slide_key)
            for path, name in names.items()
        }
    if len(slides) > 1:
        raise InputError(
            f"{corpora[0]}: is a corpus; give no other slides, or add them by `sagefm corpus build`"
        )
    options = {"--patients": patients, "--slide-key": slide_key, "--layer": layer}
    if given := [option for option, value in options.items() if value]:
        raise InputError(
            f"{corpora[0]}: is a corpus, which stores patients, slides and counts; leave out "
            f"{given[0]}"
        )
    return sagefm.pretrain.Corpus.open(corpora[0])


def _write(result: "TrainingResult", out: Path) -> None:
    import sagefm

    curve, picture = out.with_suffix(".csv"), out.with_suffix(".png")
    result.model.save(out)
    with replacing(curve) as beside:
        result.history.to_csv(beside, index=False)
    sagefm.pl.training(result.history, save=picture)
    epochs, loss = len(result.history), result.history["train_loss"].iloc[-1]
    typer.echo(
        f"{out}: {result.model}; best epoch {result.model.provenance['best_epoch']} of {epochs}, "
        f"{_losses(result.model, loss)}; curve in {curve.name} and {picture.name}"
    )


def _losses(model: "SageFM", train_loss: float | None = None) -> str:
    """Describe the validation loss of a model, or the training loss if it has none."""
    made = model.provenance
    if "validation_loss" not in made:
        training = "" if train_loss is None else f"training loss {train_loss:.4f}, "
        return f"{training}no patient held out"
    references = [f"{name} mean {made[f'{name}_mean_loss']:.4f}" for name in ("neighbor", "gene")]
    return f"validation loss {made['validation_loss']:.4f} ({', '.join(references)})"


def _read_patients(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read a table of patients: slide → patient, and slide → all columns."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if not {"slide", "patient"} <= set(table.columns):
        raise InputError(
            f"{path}: has columns {', '.join(table.columns)}; it needs slide and patient"
        )
    rows = table.drop_duplicates("slide").to_dict("records")
    facts = {row["slide"]: {str(name): str(value) for name, value in row.items()} for row in rows}
    table = table[["slide", "patient"]].drop_duplicates()
    bad = table[table["slide"].duplicated() | (table["patient"].str.strip() == "")]
    if len(bad):
        raise InputError(
            f"{path}: slide {bad['slide'].iloc[0]!r} has no patient, or two; give each slide one"
        )
    return dict(zip(table["slide"], table["patient"], strict=True)), facts
