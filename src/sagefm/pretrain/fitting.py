"""Training a model on slides: the function behind ``sagefm pretrain``."""

import hashlib
import os
import platform
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm._validate import short
from sagefm.model import Config, SageFM, pick_device
from sagefm.nn import Context
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.labels import word_of
from sagefm.pp.sections import sections_of
from sagefm.pp.slide_record import STATED, TRAINED_SLIDES
from sagefm.pretrain.absent import fit_absent, samples_of
from sagefm.pretrain.data import Split, gene_mean_of, of_corpus, of_memory
from sagefm.pretrain.loop import Epochs, train
from sagefm.pretrain.recipe import DataTable, Recipe
from sagefm.pretrain.reference_losses import reference_losses
from sagefm.pretrain.reference_spots import reference_spots_of
from sagefm.pretrain.run import Progress, Run, State, is_first_process, require_same
from sagefm.pretrain.start import require_axes, start
from sagefm.pretrain.tasks import TASKS

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pretrain.source import Source


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run."""

    model: SageFM
    """The model of the best epoch."""
    history: pd.DataFrame
    """One row per epoch: epoch, train_loss, validation_loss, learning_rate, spots_per_second,
    seconds (from the start); and, the same in every row, the validation losses of two predictors
    without a network: gene_mean, neighbor_mean. All losses are mean squared errors on the log1p
    counts of masked genes. The training loss of the network ``context`` includes a tenth of the
    error on genes that are missing from whole slides."""
    interrupted: bool = False
    """Whether Ctrl-C ended training."""


def fit(
    slides: "Mapping[str, AnnData] | Source",
    recipe: Recipe | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    slide_key: str | None = None,
    device: str | None = None,
    devices: int = 1,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> TrainingResult:
    """Train a model to predict masked genes of spots from the spots and their neighbors.

    With the network ``published`` task, loss and optimizer are those of SAGE-FM (arXiv 2601.15504);
    the input of the network ``context`` is the whole slide, or 700 spots of a large one, and in
    some batches it also predicts genes that are missing from all spots. No patient is in both
    training and validation; with one patient only, an area of each slide is held out, with a
    warning.

    Parameters
    ----------
    slides
        Name → slide with raw counts and coordinates; or a :class:`sagefm.pretrain.Corpus`.
    recipe
        See :class:`Recipe`; the published one if not given.
    patients
        Slide name → patient; the recipe's ``patient_key`` column of ``obs`` if not given. Not for a
        corpus, which stores its patients.
    facts
        Slide name → what the model records about the slide: organ, disease, technology, source,
        accession, license. What is not given is taken from the corpus, or from a column of ``obs``
        with a single value, or from ``uns``. Slides that are not trained on are ignored.
    slide_key
        ``obs`` column with the section of each spot, where an object holds several.
    device
        ``"cpu"``, ``"cuda"``, …; if not given, a CUDA device if there is one.
    devices
        Number of processes, each on a device of its own (on the CPU, on its part of the cores).
        More than one starts the running command again, so it is for scripts and the command line,
        not for notebooks. Under ``torchrun`` its settings hold.
    folder
        Where to keep the run: its last state, the best model so far, logs. An earlier run in it is
        deleted, unless it is resumed. If not given, a temporary folder.
    resume
        Continue the run in `folder`, whatever ended it. The weights will be those of a run that was
        never interrupted.
    workers
        Threads that read and gather batches.
    progress
        Whether to show a progress bar.

    Returns
    -------
    The model of the epoch with the lowest validation loss (of the last epoch, if nobody is held
    out), and the history. The model stores a sample of its training spots, and a record of every
    training slide (in the first of several processes). Ctrl-C ends training early and returns the
    best model so far.

    Raises
    ------
    InputError
        A slide cannot be used, the split leaves nothing to train or to validate on, there are too
        few spots or genes for the network, or the run to resume is of other data or another recipe.
    """
    recipe = recipe or Recipe()
    where = pick_device(device)
    split = split_of(slides, recipe, patients, slide_key)
    return fit_split(
        split, recipe, where, facts=facts or {}, devices=devices, folder=folder, resume=resume,
        workers=workers, progress=progress,
    )  # fmt: skip


def fit_split(
    split: Split,
    recipe: Recipe,
    device: torch.device,
    *,
    facts: Mapping[str, Mapping[str, str]],
    devices: int = 1,
    folder: str | Path | None,
    resume: bool,
    workers: int,
    progress: bool,
) -> TrainingResult:
    """Train on slides that are split and aligned; see :func:`fit`."""
    config = Config(recipe.network.name, tuple(recipe.network.widths), split.source.n_neighbors)
    _require_enough(split, recipe, devices)
    require_axes(split, recipe.network)
    described = facts_of(split, recipe)
    with ExitStack() as stack:
        place = folder or stack.enter_context(tempfile.TemporaryDirectory())
        run = Run(Path(place))
        if resume:
            run.require()  # before the lock makes its folder
        if is_first_process():
            stack.enter_context(run.locked())
        state = run.load() if resume else None
        if state:
            require_same(run, state.facts, described)
        elif is_first_process():
            run.clear()
        result = _train(
            split, recipe, config, run, state, described, device, devices, workers, progress
        )
        if is_first_process():
            _remember(result.model, split, recipe.train.seed, facts)
        return result


def split_of(
    slides: "Mapping[str, AnnData] | Source",
    recipe: Recipe,
    patients: Mapping[str, str] | None,
    slide_key: str | None,
) -> Split:
    """Split and align slides for :func:`fit`."""
    if not isinstance(slides, Mapping):
        return of_corpus(slides, recipe)
    if not slides:
        raise InputError("no slides to train on; name at least one")
    if patients is None:
        _warn_without_patients(slides, recipe.data.patient_key)
    sections = sections_of(
        slides, slide_key=slide_key, patient_key=recipe.data.patient_key, patients=patients
    )
    return of_memory(slides, sections, recipe)


def _warn_without_patients(slides: Mapping[str, "AnnData"], key: str) -> None:
    """Warn of slides without a patient: two slides of one patient could be on both sides."""
    lacking = [name for name, slide in slides.items() if key not in slide.obs]
    if lacking and key != DataTable().patient_key and len(lacking) == len(slides):
        raise InputError(f"no slide has a column {key!r} in obs; name the one with the patients")
    if lacking:
        logger.warning(
            "%d of %d slides have no obs column %r and count as a patient each (%s)",
            len(lacking), len(slides), key, few(lacking),
        )  # fmt: skip


def _require_enough(split: Split, recipe: Recipe, devices: int) -> None:
    sides = [side for side in (split.training, split.validation) if side]
    spots = min(sum(map(len, side.values())) for side in sides)
    processes = int(os.environ.get("WORLD_SIZE", devices))
    if min(spots, recipe.train.batch_size // 4) < processes > 1:
        raise InputError(
            f"{processes} processes need batches of {4 * processes} spots at least and as many to "
            f"validate on; there are {spots}, and train.batch_size is {recipe.train.batch_size}"
        )


def facts_of(split: Split, recipe: Recipe) -> dict[str, Any]:
    """Describe recipe and data of a run, which can be resumed with the same only."""
    table = split.source.table
    columns = [name for name in ("patient", "spots", "checksum") if name in table]
    used = table.loc[[*split.training, *split.validation], columns]
    free = {"patience", "save_minutes"}  # a run may go on longer
    free |= {"max_epochs"} if recipe.train.schedule == "plateau" else set()
    return {
        "recipe": recipe.model_dump(exclude={"train": free}),
        "slides": used[~used.index.duplicated()].to_dict("index"),
        "genes": hashlib.sha256("\n".join(split.source.vocabulary).encode()).hexdigest(),
    }


def _train(
    split: Split, recipe: Recipe, config: Config, run: Run, state: State | None,
    facts: dict[str, Any], device: torch.device, devices: int, workers: int, progress: bool,
) -> TrainingResult:  # fmt: skip
    model = SageFM.new(split.source.vocabulary, config, seed=recipe.train.seed)
    if state:
        _restore(model, run, state)
        gene_mean = state.gene_mean
    else:
        gene_mean = gene_mean_of(split)
        start(model.network, split, gene_mean, seed=recipe.train.seed)
    training = split.plan(split.training, recipe)
    validation = split.plan(split.validation, recipe, mixed=False)
    task = TASKS[recipe.network.name]
    epochs = Epochs(split.source, training, validation, task, recipe.train, workers)
    held_out = epochs.validate() if split.validation else ()
    references = reference_losses(gene_mean, held_out, config.n_neighbors)
    model.provenance = {
        "weights": "pretrained",
        **_provenance(split, recipe),
        **{f"{name}_loss": loss for name, loss in references.items() if held_out},
    }
    state = state or State(Progress(), {}, {}, gene_mean, facts)
    interrupted = train(
        model, run, epochs, state, device=device, devices=devices, progress_bar=progress
    )
    if is_first_process() and isinstance(model.network, Context):
        seed = recipe.train.seed
        model.network.absent = fit_absent(list(samples_of(split, seed)), seed)
    history = pd.DataFrame(state.progress.rows).assign(**references)
    return TrainingResult(model, history, interrupted)


def _remember(
    model: SageFM, split: Split, seed: int, facts: Mapping[str, Mapping[str, str]]
) -> None:
    """Store a sample of the training spots and the records of the training slides."""
    model.trained_on, records = reference_spots_of(model, split.source, split.training, seed=seed)
    for name, record in records.items():
        words = {fact: word_of(value) for fact, value in facts.get(name, {}).items()}
        known = {fact: word for fact in STATED if (word := words.get(fact))}
        records[name] = record.stated(**known)
    model.provenance[TRAINED_SLIDES] = {name: each.entries() for name, each in records.items()}


def _restore(model: SageFM, run: Run, state: State) -> None:
    """Set the weights of a run to continue."""
    try:
        model.network.load_state_dict(state.network)
    except RuntimeError as error:
        raise InputError(
            f"{run.last}: its weights are not those of the network ({short(error)}); start again "
            "with --overwrite"
        ) from error
    if state.gene_mean.shape != (len(model.vocabulary),):
        raise InputError(f"{run.last}: is of other genes; start again with --overwrite")


def _provenance(split: Split, recipe: Recipe) -> dict[str, Any]:
    """Describe what a model was made of: data, recipe with its seed, versions."""
    sides = (split.training, split.validation)
    spots = {
        slide: sum(len(side.get(slide, ())) for side in sides) for slide in sides[0] | sides[1]
    }
    return {
        "recipe": recipe.model_dump(),
        "slides": spots,
        "validation_spots": {slide: len(held) for slide, held in split.validation.items()},
        "gene_names": known_gene_names().version,
        "sagefm": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
