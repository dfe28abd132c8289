"""Training as a Lightning module: predict the hidden genes of the center."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sagefm.nn import Network
from sagefm.pretrain.batches import Batch
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.run import restore_moments


class Pretraining(L.LightningModule):
    """A network that learns to predict what a mask hides of the center.

    Parameters
    ----------
    moments
        What the optimizer remembers of an earlier part of the run.
    """

    def __init__(
        self, network: Network, settings: TrainTable, moments: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.moments = moments or {}
        # Not a buffer: several processes would overwrite theirs with that of the first.
        self.sums = torch.zeros(2, 2, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predict what the centers hide, and compare: the mean squared error on log1p counts.

        Several processes average their gradients: times their number, the errors of each add up to
        the mean over the whole batch.
        """
        loss = batch.error(self.network, self.trainer.world_size)
        self._add(0, loss / self.trainer.world_size, batch)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the same on spots of patients that are held out."""
        self._add(1, batch.error(self.network, 1.0), batch)

    def _add(self, stage: int, loss: Tensor, batch: Batch) -> None:
        self.sums = self.sums.to(loss.device)
        self.sums[stage] += torch.stack(
            [
                loss.detach().double() * batch.n_hidden,
                loss.new_tensor(batch.n_own).double(),
            ]
        )

    def mean_error(self, stage: int) -> float:
        """Give the mean over all processes of what was added up in training (0), validation (1).

        A new sum begins.
        """
        error, entries = self.trainer.strategy.reduce(self.sums[stage].clone(), reduce_op="sum")
        self.sums[stage] = 0
        return float(error / entries)

    def configure_optimizers(self) -> Any:
        """Take that of the network; the learning rate is set step by step."""
        settings = self.settings
        optimizer = self.network.optimizer(settings.learning_rate, settings.weight_decay)
        restore_moments(optimizer, self.network, self.moments)
        return optimizer
