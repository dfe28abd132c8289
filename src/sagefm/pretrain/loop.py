"""The training loop: Lightning's, with the state of the run kept by us.

Lightning's own checkpoints are pickles, and with them a resumed epoch starts anew. Here batches
and masks follow from seed, epoch and place in the epoch, so that a run is its weights, its
optimizer and its place: one safetensors file.
"""

import ctypes
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from sagefm._errors import InputError, logger
from sagefm.model import SageFM
from sagefm.pretrain.batches import Batch, Batches, Task
from sagefm.pretrain.module import Pretraining
from sagefm.pretrain.plan import Plan
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.run import Progress, Run, State, moments_of
from sagefm.pretrain.schedule import learning_rate, stalled
from sagefm.pretrain.source import Source

TRAIN, VALIDATION = 0, 1
_TELL_SECONDS = 60
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of the GNU C library's malloc.h


class Data(L.LightningDataModule):
    """The batches of the epoch that a run is in, from its place on."""

    def __init__(
        self, source: Source, training: Plan, validation: Plan, task: type[Task],
        settings: TrainTable, progress: Progress, workers: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.source, self.training, self.validation = source, training, validation
        self.task, self.settings, self.progress, self.workers = task, settings, progress, workers

    def train_dataloader(self) -> Batches:
        """Give what is left of the epoch."""
        seed, epoch = self.settings.seed, self.progress.epoch
        plan = self.training.shuffled(seed, epoch)
        task = self.task.of(self.settings, learning=True)
        return self._batches(plan, (seed, TRAIN, epoch), task, self.progress.batch)

    def val_dataloader(self) -> Batches:
        """Give the validation spots, with the same masks in every epoch."""
        task = self.task.of(self.settings, learning=False)
        return self._batches(self.validation.in_order(), (self.settings.seed, VALIDATION), task)

    def _batches(self, plan: Any, seed: tuple[int, ...], task: Task, first: int = 0) -> Batches:
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        return Batches(self.source, plan, seed, task, first, rank, world, self.workers)


class Keeper(Callback):
    """Set the learning rate, keep history and state, end the run when it stalls."""

    def __init__(self, model: SageFM, run: Run, data: Data, start: State) -> None:
        self.model, self.run, self.start = model, run, start
        self.progress, self.settings = data.progress, data.settings
        self.best: dict[str, torch.Tensor] = {}
        self.interrupted = False
        self._saved = self._told = self._since = self._marked = time.monotonic()
        self._spots, self._pace = 0, 0.0
        self.held_out = data.validation.n_spots > 0
        self._n_batches = self._n_steps = 1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin, or go on with, an epoch."""
        module = _ours(pl_module)
        if self.progress.batch and trainer.is_global_zero:
            sums = [self.progress.error, self.progress.entries]
            module.sums[TRAIN] = torch.tensor(sums, dtype=torch.float64)
        self._n_batches = self.progress.batch + int(trainer.num_training_batches)
        self._n_steps = self.settings.max_epochs * self._n_batches
        self._since, self._spots = time.monotonic(), 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Set the learning rate of the step."""
        rate = learning_rate(self.settings, self.progress.step, self._n_steps, self.progress.losses)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["pace"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Count, tell, and save now and then."""
        progress, now = self.progress, time.monotonic()
        progress.batch, progress.step = batch.number + 1, progress.step + 1
        self._spots += len(batch.masks.hides) * trainer.world_size
        self._pace = self._spots / max(now - self._since, 1e-9)
        pl_module.log("spots/s", self._pace, prog_bar=True, logger=False, batch_size=1)
        if progress.step % 50 == 0:
            _log(trainer, {"train_loss_of_batch": float(outputs["loss"])}, progress.step)
        left = (self._n_batches - progress.batch) * (now - self._since) / (batch_idx + 1)
        if now - self._told > _TELL_SECONDS:
            self._told = now
            logger.info(
                "epoch %d: %d of %d batches, %.0f spots/s, %.0f min left in it",
                progress.epoch + 1, progress.batch, self._n_batches, self._pace, left / 60,
            )  # fmt: skip
        due = trainer.is_global_zero and now - self._saved >= 60 * self.settings.save_minutes
        due, stop = self._agree(trainer, due, self.interrupted)
        trainer.should_stop |= stop
        if (due or stop) and progress.batch < self._n_batches:
            self._save(trainer, _ours(pl_module))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close an epoch; one that was cut short counts only where there is no other."""
        module, progress = _ours(pl_module), self.progress
        complete = progress.batch >= self._n_batches
        self._mark()
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": module.mean_error(TRAIN),
            "validation_loss": module.mean_error(VALIDATION),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "spots_per_second": self._pace,
            "seconds": progress.seconds,
        }
        if progress.rows and not complete:
            return
        progress.rows.append(row)
        losses = progress.losses
        left = (self.settings.max_epochs - row["epoch"]) * (self._marked - self._since) / 60
        logger.info(
            "epoch %d: %s loss %.4f, %.0f spots/s, %.0f min left at most",
            row["epoch"], "validation" if self.held_out else "training", losses[-1], self._pace,
            left,
        )  # fmt: skip
        best = not self.held_out or losses[-1] == min(losses)
        if best:
            state = self.model.network.state_dict()
            self.best = {name: tensor.cpu().clone() for name, tensor in state.items()}
            self.model.provenance["best_epoch"] = row["epoch"]
            if self.held_out:
                self.model.provenance["validation_loss"] = row["validation_loss"]
        if not complete:
            return
        [stop] = self._agree(trainer, self.interrupted)
        trainer.should_stop |= stop
        progress.epoch, progress.batch = progress.epoch + 1, 0
        _log(trainer, {key: row[key] for key in list(row)[1:]}, progress.step)
        if trainer.is_global_zero and best:
            self.model.save(self.run.best)
        self._save(trainer, module)
        if stalled(losses, self.settings.patience):
            trainer.should_stop = True

    def _save(self, trainer: L.Trainer, module: Pretraining) -> None:
        self._mark()
        self._saved = self._marked
        sums = trainer.strategy.reduce(module.sums[TRAIN].clone(), reduce_op="sum")
        error, entries = sums.tolist()
        self.progress.error, self.progress.entries = error, int(entries)
        if trainer.is_global_zero:
            moments = moments_of(trainer.optimizers[0], module.network)
            weights = module.network.state_dict()
            self.run.save(replace(self.start, network=weights, optimizer=moments))

    @staticmethod
    def _agree(trainer: L.Trainer, *wishes: bool) -> list[bool]:
        """Do in all processes what one of them wants to, and at the same step."""
        if trainer.world_size == 1:
            return list(wishes)
        wished = torch.tensor(wishes, dtype=torch.float32, device=trainer.strategy.root_device)
        return [n > 0 for n in trainer.strategy.reduce(wished, reduce_op="sum").tolist()]

    def _mark(self) -> None:
        """Add the time since the last mark."""
        now = time.monotonic()
        self.progress.seconds += now - self._marked
        self._marked = now


def train(
    model: SageFM, run: Run, data: Data, start: State,
    *, device: torch.device, devices: int, progress_bar: bool,
) -> None:  # fmt: skip
    """Train the network of `model` in place, up to its best epoch.

    Parameters
    ----------
    start
        What to go on from; its progress, which is that of `data`, is kept up to date.

    Raises
    ------
    InputError
        The loss is not finite in any epoch.
    """
    settings, progress = data.settings, data.progress
    module = Pretraining(model.network, settings, start.optimizer).train()
    keeper = Keeper(model, run, data, start)
    if progress.rows:
        best = SageFM.load(run.best, device="cpu")
        keeper.best = best.network.state_dict()
        known = {"best_epoch", "validation_loss"} & best.provenance.keys()
        model.provenance |= {name: best.provenance[name] for name in known}
    with quiet_lightning(), keeping_memory(device):
        trainer = _trainer(run, settings, device, devices, keeper, progress_bar)
        trainer.fit_loop.epoch_progress.current.completed = progress.epoch
        trainer.fit_loop.epoch_progress.current.processed = progress.epoch
        if not stalled(progress.losses, settings.patience):
            with _stopping_on_interrupt(keeper):
                trainer.fit(module, datamodule=data)
    if keeper.interrupted and not progress.rows:
        raise KeyboardInterrupt  # before there was anything to keep
    if not any(loss < float("inf") for loss in progress.losses):
        raise InputError(
            "training diverged: the loss is not finite in any epoch; lower train.learning_rate"
        )
    model.network.cpu().load_state_dict(keeper.best)
    model.network.eval()


def _trainer(
    run: Run, settings: TrainTable, device: torch.device, devices: int, keeper: Keeper, bar: bool
) -> L.Trainer:
    # Under torchrun the environment says how many processes there are, on how many nodes.
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else devices
    nodes = int(os.environ["WORLD_SIZE"]) // local if elastic else 1
    alone = local * nodes == 1
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // local))
    return L.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if alone and device.type != "cpu" else local,
        num_nodes=nodes,
        strategy="auto" if alone else "ddp",
        use_distributed_sampler=False,
        plugins=[] if elastic else [LightningEnvironment()],  # also inside a Slurm job
        precision=_precision(settings.precision, device),
        gradient_clip_val=settings.clip_norm or None,
        max_epochs=settings.max_epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[keeper, *([RichProgressBar()] if bar else [])],
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=None if keeper.held_out else 0,
        logger=TensorBoardLogger(run.folder, name=None, version="tensorboard"),
        log_every_n_steps=1,  # what is logged, and how often, is up to the keeper
        num_sanity_val_steps=0,
    )


def _precision(name: str, device: torch.device) -> Any:
    half = name == "bfloat16" or (
        name == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return "bf16-mixed" if half else "32-true"


def _ours(module: L.LightningModule) -> Pretraining:
    return cast(Pretraining, module)


def _log(trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
    if trainer.logger is not None:
        trainer.logger.log_metrics(metrics, step=step)


@contextmanager
def _stopping_on_interrupt(keeper: Keeper) -> Iterator[None]:
    """Let Ctrl-C end training after the running batch, and a second one at once."""

    def stop(*_: Any) -> None:
        logger.warning("stopping: the best epoch so far is kept")
        keeper.interrupted = True
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
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes about hardware and workers away from users."""
    chatty = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in chatty]
    hook = threading.excepthook
    # A thread of TensorBoard finds the disk full: what it raises comes up in ours, too.
    threading.excepthook = lambda told: None if told.exc_type is OSError else hook(told)
    for each in chatty:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Its own use of a torch interface that is going away.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        threading.excepthook = hook
        for each, level in zip(chatty, levels, strict=True):
            each.setLevel(level)


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep freed memory, where it is one that can.

    Each step makes gradients as large as the weights. Given back and asked for again, their pages
    are cleared by the system every time, which takes a quarter of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or device.type != "cpu":
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, 65536)
        mallopt(_TRIM_THRESHOLD, 128 * 1024)
