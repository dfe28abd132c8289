"""From slides to a model: the one function behind ``sagefm pretrain``."""

import logging
import platform
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment
from numpy.typing import NDArray

from sagefm import __version__
from sagefm._errors import InputError, logger
from sagefm.model import Config, Prepared, SageFM, pick_device
from sagefm.pp.counts import coordinates, few
from sagefm.pp.gene_lists import read_genes
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.module import Pretraining
from sagefm.pretrain.recipe import DataTable, Recipe
from sagefm.pretrain.reference import reference_losses
from sagefm.pretrain.split import end_of_slide, hold_out, most_detected, patients_of
from sagefm.pretrain.spots import Shuffled, Spots

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Result:
    """What a training run leaves."""

    model: SageFM
    """The model of the best epoch."""
    history: pd.DataFrame
    """One row per epoch: epoch, train_loss, validation_loss, learning_rate; and, the same in every
    row, the losses of what needs no network on the same masked genes of the validation spots:
    gene_mean, neighbor_mean (mean squared error on log1p counts)."""


def fit(
    slides: Mapping[str, "AnnData"],
    recipe: Recipe | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    slide_key: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Result:
    """Pretrain a model: predict the hidden genes of a spot from it and its neighbors.

    The task, loss and optimizer are those of SAGE-FM (arXiv 2601.15504). Training and validation
    never share a patient; with one patient only, the right end of each slide is held out (told).

    Parameters
    ----------
    slides
        Name → slide with raw counts and coordinates.
    recipe
        See :class:`Recipe`; the published one if not given.
    patients
        Slide name → patient; the recipe's ``patient_key`` column of ``obs`` if not given.
    slide_key
        ``obs`` column that tells slides apart inside one object.
    device
        ``"cpu"``, ``"cuda"``; a CUDA device if there is one when not given.
    progress
        Whether to show a progress bar.

    Returns
    -------
    The model of the epoch with the lowest validation loss, and the history. Ctrl-C ends training
    early and returns the best so far.

    Raises
    ------
    InputError
        A slide cannot be used, or the split leaves nothing to train or to validate on.
    """
    recipe = recipe or Recipe()
    where = pick_device(device)
    if not slides:
        raise InputError("no slides to train on; name at least one")
    held = _held_out(slides, recipe, patients)
    vocabulary = _vocabulary(slides, held, recipe.data.genes)
    config = Config(recipe.network.name, tuple(recipe.network.widths))
    model = SageFM.new(vocabulary, config, seed=recipe.train.seed)
    spots = Spots.of([_prepare(model, name, slides[name], slide_key) for name in slides])
    history = _train(model, spots, np.concatenate(list(held.values())), recipe, where, progress)
    model.provenance = _provenance(slides, held, recipe, history)
    return Result(model, history)


def _provenance(
    slides: Mapping[str, "AnnData"],
    held: Mapping[str, NDArray[np.bool_]],
    recipe: Recipe,
    history: pd.DataFrame,
) -> dict[str, Any]:
    """Say what a model was made of: data, recipe with its seed, result, versions."""
    best = history.iloc[int(history["validation_loss"].argmin())]
    return {
        "weights": "pretrained",
        "recipe": recipe.model_dump(),
        "slides": {name: slide.n_obs for name, slide in slides.items()},
        "validation_spots": {name: int(rows.sum()) for name, rows in held.items() if rows.any()},
        "best_epoch": int(best["epoch"]),
        "validation_loss": float(best["validation_loss"]),
        "gene_mean_loss": float(best["gene_mean"]),
        "neighbor_mean_loss": float(best["neighbor_mean"]),
        "sagefm": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _held_out(
    slides: Mapping[str, "AnnData"], recipe: Recipe, table: Mapping[str, str] | None
) -> dict[str, NDArray[np.bool_]]:
    """Choose the validation spots of each slide."""
    if table is None:
        _tell_without_patients(slides, recipe.data.patient_key)
    owners = [patients_of(name, slides[name], recipe.data.patient_key, table) for name in slides]
    held = hold_out(np.concatenate(owners), recipe.data.validation, recipe.train.seed)
    by_slide = np.split(held, np.cumsum([len(o) for o in owners])[:-1])
    if not held.any():
        share = recipe.data.validation if isinstance(recipe.data.validation, float) else 0.1
        logger.warning(
            "all slides are of one patient: the right end of each (%.0f %% of its spots) is held "
            "out, and the validation loss says nothing about other patients",
            100 * share,
        )
        by_slide = [end_of_slide(coordinates(slide), share) for slide in slides.values()]
    return dict(zip(slides, by_slide, strict=True))


def _tell_without_patients(slides: Mapping[str, "AnnData"], key: str) -> None:
    """Say which slides do not name their patient: two of one patient would stand on both sides."""
    lacking = [name for name, slide in slides.items() if key not in slide.obs]
    if lacking and key != DataTable().patient_key and len(lacking) == len(slides):
        raise InputError(f"no slide has a column {key!r} in obs; name the one with the patients")
    if lacking:
        logger.warning(
            "%d of %d slides have no obs column %r and count as a patient each (%s)",
            len(lacking), len(slides), key, few(lacking),
        )  # fmt: skip


def _vocabulary(
    slides: Mapping[str, "AnnData"], held: Mapping[str, NDArray[np.bool_]], genes: int | str
) -> Vocabulary:
    if isinstance(genes, str):
        return read_genes(genes)
    return most_detected(list(slides.values()), [~rows for rows in held.values()], genes)


def _prepare(model: SageFM, name: str, slide: "AnnData", slide_key: str | None) -> Prepared:
    try:
        return model.prepare(slide, slide_key=slide_key)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _train(
    model: SageFM,
    spots: Spots,
    held: NDArray[np.bool_],
    recipe: Recipe,
    device: torch.device,
    progress: bool,
) -> pd.DataFrame:
    """Train the network of `model` in place, up to its best epoch, and tell how it went."""
    settings = recipe.train
    training, validation = np.flatnonzero(~held), np.flatnonzero(held)
    module = Pretraining(model.network, model.config.n_neighbors, settings).train()
    gene_mean = torch.from_numpy(spots.expression[training].mean(axis=0).A1).float()
    model.network.start_from(gene_mean)
    train_batches = spots.batches(Shuffled(training, settings.seed), settings.batch_size)
    validation_batches = spots.batches(validation.tolist(), settings.batch_size)
    history = _History()
    with tempfile.TemporaryDirectory() as folder, _quiet_lightning():
        best = ModelCheckpoint(folder, monitor="validation_loss", save_weights_only=True)
        stopping = EarlyStopping("validation_loss", patience=settings.patience)
        callbacks = [history, best, stopping]
        trainer = L.Trainer(
            accelerator=device.type,
            devices=1 if device.type == "cpu" else [device.index or 0],
            plugins=[LightningEnvironment()],  # one process, also inside a Slurm job
            max_epochs=settings.max_epochs,
            callbacks=[*callbacks, RichProgressBar()] if progress else callbacks,
            enable_progress_bar=progress,
            enable_model_summary=False,
            logger=False,
            num_sanity_val_steps=0,
        )
        with _stopping_on_interrupt(trainer):
            trainer.fit(module, train_batches, validation_batches)
        if not any(np.isfinite(row["validation_loss"]) for row in history.rows):
            raise InputError(
                "training diverged: the loss is not finite in any epoch; lower train.learning_rate"
            )
        module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    references = reference_losses(module.eval().cpu(), gene_mean, validation_batches)
    return pd.DataFrame(history.rows).assign(**references)


class _History(Callback):
    """Keep the losses of each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics  # also of an epoch cut short: validation runs on a stop
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(metrics["train_loss"]),
            "validation_loss": float(metrics["validation_loss"]),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        self.rows.append(row)
        logger.info("epoch %(epoch)d: validation loss %(validation_loss).4f", row)


@contextmanager
def _stopping_on_interrupt(trainer: L.Trainer) -> Iterator[None]:
    """Let Ctrl-C end training after the running batch, and a second one at once."""

    def stop(*_: Any) -> None:
        logger.warning("stopping: the best epoch so far is kept")
        trainer.should_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except SystemExit as error:  # how Lightning ends after a second Ctrl-C
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes about hardware and workers away from users."""
    chatty = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in chatty]
    for each in chatty:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Gathering a batch is a sparse row slice: workers would cost more than they bring.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Its own use of a torch interface that is going away.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for each, level in zip(chatty, levels, strict=True):
            each.setLevel(level)
