"""A run on disk: what a training that was killed needs to continue as if nothing had happened."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._files import locked, replacing, writing
from sagefm._validate import read_as, short
from sagefm.nn import Network, checkpoint
from sagefm.pp.pseudonyms import with_names, without_names

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0
    """Epochs that are complete."""
    batch: int = 0
    """Batches done of the running epoch."""
    step: int = 0
    """Steps done in all."""
    seconds: float = 0.0
    """Time spent on them."""
    error: float = 0.0
    """Summed squared errors of the running epoch."""
    entries: int = 0
    """Number of masked entries that the errors are of."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The history: one row per complete epoch."""

    @property
    def losses(self) -> list[float]:
        """Validation loss of each complete epoch; training loss where nobody is held out."""
        pairs = [(row["validation_loss"], row["train_loss"]) for row in self.rows]
        return [training if np.isnan(held_out) else held_out for held_out, training in pairs]


@dataclass(frozen=True)
class State:
    """A run without its data."""

    progress: Progress
    network: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    """Moments by name, such as ``exp_avg.first``."""
    gene_mean: Tensor
    """Mean log1p count of each gene over the training spots."""
    facts: dict[str, Any]
    """Recipe and slides of the run, which can be resumed with the same only."""


@dataclass(frozen=True)
class _StateHeader:
    """What the file of a state says about its tensors."""

    format: int
    progress: Progress
    facts: dict[str, Any]


class Run:
    """The folder of a run.

    It holds ``last.safetensors`` (to continue from), ``best.safetensors`` (a model file),
    ``metrics.csv`` and logs for TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.safetensors"
        self.best = folder / "best.safetensors"
        self.metrics = folder / "metrics.csv"
        self.logs = folder / "tensorboard"
        self._events = self.logs / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder."""
        with locked(self.folder):
            for left in (*self.folder.glob(".*.safetensors"), *self.folder.glob(".*.csv")):
                left.unlink()  # incomplete files of a run that was killed
            try:
                yield
            finally:
                if not self.last.is_file():  # nothing to continue from
                    self.clear()

    def clear(self) -> None:
        """Delete an earlier run."""
        for path in (self.last, self.best, self.metrics):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)

    def save(self, state: State) -> None:
        """Replace the state on disk, at one moment."""
        weights = {f"network.{name}": tensor for name, tensor in state.network.items()}
        weights |= {f"optimizer.{name}": tensor for name, tensor in state.optimizer.items()}
        weights["gene_mean"] = state.gene_mean
        facts = {"progress": asdict(state.progress), "facts": without_names(state.facts)}
        checkpoint.write(self.last, weights, facts)
        # A copy of what the state holds.
        with suppress(InputError), replacing(self.metrics) as beside:
            pd.DataFrame(state.progress.rows).to_csv(beside, index=False)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append to the logs for TensorBoard."""
        names = "compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.record_writer"
        event, summary, writer = (require(f"tensorboard.{n}", "train", "training") for n in names)
        values = [summary.Summary.Value(tag=n, simple_value=v) for n, v in metrics.items()]
        logged = [event.Event(step=step, summary=summary.Summary(value=values))]
        with writing(self.logs):
            if not self._events.exists():
                self.logs.mkdir(parents=True, exist_ok=True)
                logged.insert(0, event.Event(file_version="brain.Event:2"))
            with self._events.open("ab") as file:
                for entry in logged:
                    entry.wall_time = time.time()
                    writer.RecordWriter(file).write(entry.SerializeToString())

    def require(self) -> None:
        """Refuse to resume a run that does not exist.

        Raises
        ------
        InputError
            The folder holds no run.
        """
        if not self.last.is_file():
            raise InputError(f"{self.folder}: holds no run to resume; leave out --resume")

    def load(self) -> State:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            There is no state, or it is damaged.
        """
        self.require()
        try:
            weights, header = checkpoint.read(self.last)
        except InputError as error:
            best = f"; {self.best} is the best model so far" if self.best.is_file() else ""
            raise InputError(f"{error}; or start again with --overwrite{best}") from error
        try:
            described = read_as(_StateHeader, header)
            gene_mean = weights.pop("gene_mean")
            described.progress.losses  # noqa: B018  every epoch has them
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{self.last}: is not the state of a run ({short(error)}); start again with "
                "--overwrite"
            ) from error
        tensors: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            tensors.setdefault(part, {})[rest] = tensor
        learned = {_weight(name) for name in tensors["optimizer"]}
        moments = {f"{moment}.{name}" for moment in _MOMENTS for name in learned}
        network = tensors["network"]  # also buffers, which have no moments
        if (
            not learned
            or not learned <= network.keys()
            or tensors["optimizer"].keys() != moments
            or any(
                tensor.shape != (() if name.startswith("step.") else network[_weight(name)].shape)
                for name, tensor in tensors["optimizer"].items()
            )
        ):
            raise InputError(
                f"{self.last}: is not the whole state of a run; start again with --overwrite"
            )
        facts = described.facts
        return State(described.progress, network, tensors["optimizer"], gene_mean, facts)


def _weight(moment: str) -> str:
    """Get the name of the weight that a moment is of."""
    return moment.partition(".")[2]


def require_same(run: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue a run with another recipe or other data.

    Raises
    ------
    InputError
        Names the first entry that differs.
    """
    old, new = (_flat(json.loads(json.dumps(without_names(one)))) for one in (before, now))
    for entry in dict.fromkeys([*old, *new]):  # the recipe first, which decides about the rest
        if old.get(entry) != new.get(entry):
            fault = f"has {entry} = {old.get(entry)}, and now it is {new.get(entry)}"
            raise InputError(
                f"{run.folder}: the run to resume {with_names(fault, _words(now))}; give what it "
                "was started with, or start again with --overwrite"
            )


def _words(facts: Any) -> list[str]:
    """List all keys and texts of nested facts."""
    if isinstance(facts, Mapping):
        return [word for pair in facts.items() for one in pair for word in _words(one)]
    if isinstance(facts, list | tuple):
        return [word for one in facts for word in _words(one)]
    return [facts] if isinstance(facts, str) else []


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def moments_of(optimizer: torch.optim.Optimizer, network: Network) -> dict[str, Tensor]:
    """Get the moments of each weight by name, such as ``exp_avg.first``."""
    return {
        f"{moment}.{name}": state[moment]
        for name, parameter in network.named_parameters()
        if (state := optimizer.state.get(parameter))
        for moment in _MOMENTS
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, network: Network, moments: Mapping[str, Tensor]
) -> None:
    """Set the moments of an optimizer."""
    for name, parameter in network.named_parameters():
        for moment in _MOMENTS if moments else ():
            # A fused optimizer has its steps on the device too.
            tensor = moments[f"{moment}.{name}"].clone().to(parameter.device)
            optimizer.state[parameter][moment] = tensor


def is_first_process() -> bool:
    """Whether this process is the one of several that writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0
