"""The training loop, on Lightning Fabric, which provides devices, precision and processes.

Batches and masks follow from seed, epoch and place in the epoch. A run is therefore its weights,
its optimizer and its place: one safetensors file, from which it continues to the last bit.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sagefm._errors import InputError, logger
from sagefm._progress import stage
from sagefm.model import SageFM
from sagefm.nn import Network
from sagefm.pretrain.batches import Batch, Batches, Task
from sagefm.pretrain.devices import is_half, keeping_memory, launched_fabric
from sagefm.pretrain.plan import BatchPlan
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.run import Run, State, moments_of, restore_moments
from sagefm.pretrain.schedule import learning_rate, stalled
from sagefm.pretrain.source import Source

TRAIN, VALIDATION = 0, 1
_LOG_SECONDS, _LOG_STEPS = 60, 50


@dataclass(frozen=True)
class Epochs:
    """The batches of all epochs."""

    source: Source
    training: BatchPlan
    validation: BatchPlan
    task: type[Task]
    settings: TrainTable
    workers: int
    """Threads that read and gather batches."""

    def train(self, epoch: int, first: int, rank: int, world: int) -> Batches:
        """Get the batches of an epoch from number `first` on, for one of several processes."""
        seed, task = self.settings.seed, self.task.of(self.settings, learning=True)
        plan, seeds = self.training.shuffled(seed, epoch), (seed, TRAIN, epoch)
        return Batches(self.source, plan, seeds, task, first, rank, world, self.workers)

    def validate(self, rank: int = 0, world: int = 1) -> Batches:
        """Get the validation batches, with the same masks in every epoch."""
        seeds, task = (self.settings.seed, VALIDATION), self.task.of(self.settings, learning=False)
        plan = self.validation.in_order()
        return Batches(self.source, plan, seeds, task, 0, rank, world, self.workers)


class Loss(nn.Module):
    """A network with its loss, whose gradients the processes of a run average."""

    def __init__(self, network: Network, precision: str) -> None:
        super().__init__()
        self.network = network
        self.in_half = is_half(precision, network.device)

    def forward(self, batch: Batch, times: float) -> Tensor:
        """Compute `times` the mean squared error on the masked genes of a batch."""
        # Fabric's own mixed precision would also round the counts of the batch.
        with torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.in_half):
            return batch.error(self.network, times)


class Training:
    """A run in progress: it trains the network of `model` in place.

    Parameters
    ----------
    state
        What to continue from; its progress is kept up to date.
    fabric
        Launched.
    """

    def __init__(self, model: SageFM, run: Run, epochs: Epochs, state: State, fabric: Any) -> None:
        self.model, self.run, self.epochs, self.state = model, run, epochs, state
        self.settings, self.progress, self.fabric = epochs.settings, state.progress, fabric
        self.rank, self.world = fabric.global_rank, fabric.world_size
        network = model.network.train().to(fabric.device)
        optimizer = network.optimizer(self.settings.learning_rate, self.settings.weight_decay)
        restore_moments(optimizer, network, state.optimizer)
        self.loss, self.optimizer = fabric.setup(Loss(network, self.settings.precision), optimizer)
        self.sums = torch.zeros(2, 2, dtype=torch.float64, device=fabric.device)
        if self.rank == 0:  # what an epoch to continue has summed up
            self.sums[TRAIN] = self.sums.new_tensor([self.progress.error, self.progress.entries])
        self.held_out = epochs.validation.n_spots > 0
        self.best: dict[str, Tensor] = {}
        self.interrupted = self.stop = False
        self.saved = self.marked = self.begun = time.monotonic()

    def run_epochs(self, bar: Any) -> None:
        """Train up to the last epoch, until the loss stalls, or until Ctrl-C."""
        settings, progress = self.settings, self.progress
        while not (
            self.stop
            or progress.epoch >= settings.max_epochs
            or stalled(progress.losses, settings.patience)
        ):
            complete, speed = self._train(bar)
            if progress.rows and not complete:
                return  # an epoch that was cut short counts only where there is no other
            if self.held_out:
                self._validate()
            self._close_epoch(complete, speed)

    def _train(self, bar: Any) -> tuple[bool, float]:
        """Train on what is left of an epoch: whether to its end, and at how many spots/s."""
        progress, settings = self.progress, self.settings
        batches = self.epochs.train(progress.epoch, progress.batch, self.rank, self.world)
        n_batches, n_spots, speed = len(batches.plan), 0, 0.0
        self.begun = logged = time.monotonic()
        row = bar.add_task(
            f"epoch {progress.epoch + 1}/{settings.max_epochs}",
            total=n_batches, completed=progress.batch, speed=speed,
        )  # fmt: skip
        for n_done, batch in enumerate(batches, start=1):
            n_steps = settings.max_epochs * n_batches
            rate = learning_rate(settings, progress.step, n_steps, progress.losses)
            loss = self.train_step(self.fabric.to_device(batch), rate)
            progress.batch, progress.step = batch.number + 1, progress.step + 1

            now = time.monotonic()
            n_spots += len(batch.masks.masked) * self.world
            speed = n_spots / max(now - self.begun, 1e-9)
            bar.update(row, advance=1, speed=speed)
            if progress.step % _LOG_STEPS == 0:
                self._log({"train_loss_of_batch": float(loss)})
            if now - logged > _LOG_SECONDS:
                logged, left = now, (n_batches - progress.batch) * (now - self.begun) / n_done
                logger.info(
                    "epoch %d: batch %d of %d, %.0f spots/s, %.0f min left in the epoch",
                    progress.epoch + 1, progress.batch, n_batches, speed, left / 60,
                )  # fmt: skip

            due = self.rank == 0 and now - self.saved >= 60 * settings.save_minutes
            due, self.stop = self._any_process(due, self.interrupted)
            if (due or self.stop) and progress.batch < n_batches:
                self._save()
            if self.stop:
                break
        return progress.batch == n_batches, speed

    def train_step(self, batch: Batch, rate: float) -> Tensor:
        """Take a step of the optimizer; return the loss.

        Processes average their gradients: times their number, the errors of each add up to the
        mean over the whole batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        loss: Tensor = self.loss(batch, self.world)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.settings.clip_norm:
            self.fabric.clip_gradients(
                self.loss, self.optimizer,
                max_norm=self.settings.clip_norm, error_if_nonfinite=False,
            )  # fmt: skip
        self.optimizer.step()
        loss = loss.detach()
        self._add(TRAIN, loss / self.world, batch)
        return loss

    @torch.inference_mode()
    def _validate(self) -> None:
        """Compute the loss on the patients that are held out."""
        self.loss.eval()
        for batch in self.epochs.validate(self.rank, self.world):
            self.validation_step(self.fabric.to_device(batch))
        self.loss.train()

    def validation_step(self, batch: Batch) -> None:
        """Add the loss of a batch to that of the epoch."""
        self._add(VALIDATION, self.loss(batch, 1.0), batch)

    def _add(self, stage: int, loss: Tensor, batch: Batch) -> None:
        self.sums[stage] += torch.stack(
            [loss.double() * batch.n_masked, loss.new_tensor(batch.n_own).double()]
        )

    def _close_epoch(self, complete: bool, speed: float) -> None:
        """Add an epoch to the history, keep its weights if they are the best, and save the run."""
        progress, provenance = self.progress, self.model.provenance
        self._mark()
        errors, entries = self.fabric.all_reduce(self.sums, reduce_op="sum").T
        train_loss, validation_loss = (errors / entries).tolist()
        self.sums.zero_()
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "spots_per_second": speed,
            "seconds": progress.seconds,
        }
        progress.rows.append(row)
        losses = progress.losses
        logger.info(
            "epoch %d: %s loss %.4f, %.0f spots/s, %.0f min left at most",
            row["epoch"], "validation" if self.held_out else "training", losses[-1], speed,
            (self.settings.max_epochs - row["epoch"]) * (self.marked - self.begun) / 60,
        )  # fmt: skip
        best = not self.held_out or losses[-1] == min(losses)
        if best:
            weights = self.model.network.state_dict()
            self.best = {name: tensor.cpu().clone() for name, tensor in weights.items()}
            provenance["best_epoch"] = row["epoch"]
            if self.held_out:
                provenance["validation_loss"] = validation_loss
        if not complete:
            return
        [self.stop] = self._any_process(self.interrupted)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self._log({name: row[name] for name in list(row)[1:]})
        if self.rank == 0 and best:
            self.model.save(self.run.best)
        self._save()

    def _save(self) -> None:
        """Save all that the run needs to continue."""
        self._mark()
        self.saved = self.marked
        error, entries = self.fabric.all_reduce(self.sums[TRAIN].clone(), reduce_op="sum").tolist()
        self.progress.error, self.progress.entries = error, int(entries)
        if self.rank == 0:
            network = self.model.network
            moments = moments_of(self.optimizer, network)
            self.run.save(replace(self.state, network=network.state_dict(), optimizer=moments))

    def _any_process(self, *wishes: bool) -> list[bool]:
        """Do in all processes, and at the same step, what one of them wants to do."""
        if self.world == 1:
            return list(wishes)
        counted = torch.tensor(wishes, dtype=torch.float32, device=self.fabric.device)
        return [n > 0 for n in self.fabric.all_reduce(counted, reduce_op="sum").tolist()]

    def _mark(self) -> None:
        """Add the time since the last call to that of the run."""
        now = time.monotonic()
        self.progress.seconds += now - self.marked
        self.marked = now

    def _log(self, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            self.run.log(metrics, self.progress.step)

    @contextmanager
    def stopping_on_interrupt(self) -> Iterator[None]:
        """Let Ctrl-C end training after the running batch, and a second one at once."""

        def stop(*_: Any) -> None:
            logger.warning("stopping: the best epoch so far is kept")
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return
        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def train(
    model: SageFM, run: Run, epochs: Epochs, state: State,
    *, device: torch.device, devices: int, progress_bar: bool,
) -> bool:  # fmt: skip
    """Train the network of `model` in place, up to its best epoch.

    Parameters
    ----------
    state
        What to continue from; its progress is kept up to date.

    Returns
    -------
    Whether Ctrl-C ended it.

    Raises
    ------
    InputError
        The loss is not finite in any epoch.
    """
    progress = state.progress
    with keeping_memory(device):
        fabric = launched_fabric(device, devices)
        training = Training(model, run, epochs, state, fabric)
        if progress.rows:
            best = SageFM.load(run.best, device="cpu")
            if best.config != model.config or best.vocabulary.symbols != model.vocabulary.symbols:
                raise InputError(
                    f"{run.best}: is not of this run; put it back, or start again with --overwrite"
                )
            training.best = best.network.state_dict()
            kept = {"best_epoch", "validation_loss"} & best.provenance.keys()
            model.provenance |= {name: best.provenance[name] for name in kept}
        stage("" if progress_bar else "training")  # the bar says more
        with training.stopping_on_interrupt(), _bar(progress_bar and training.rank == 0) as bar:
            training.run_epochs(bar)
    if training.interrupted and not progress.rows:
        raise KeyboardInterrupt  # before there was anything to keep
    if not any(loss < float("inf") for loss in progress.losses):
        raise InputError(
            "training diverged: the loss is not finite in any epoch; lower train.learning_rate"
        )
    model.network.cpu().load_state_dict(training.best)
    model.network.eval()
    return training.interrupted


def _bar(shown: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    words = "{task.description}", "spots/s: {task.fields[speed]:,.0f}"
    return Progress(words[0], *columns, words[1], console=Console(stderr=True), disable=not shown)
