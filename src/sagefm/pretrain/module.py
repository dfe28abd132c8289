"""The published task as a Lightning module: predict the hidden genes of the center."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from sagefm.nn import Network, draw_masks
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.spots import Batch

_TRAIN, _VALIDATION = 0, 1


def masked_error(predicted: Tensor, truth: Tensor, masks: Tensor) -> Tensor:
    """Mean squared error over the hidden entries (the published loss, on log1p counts)."""
    return torch.where(masks, predicted - truth, 0.0).square().sum() / masks.sum()


class Pretraining(L.LightningModule):
    """A network that learns to predict what a mask hides of the center.

    Masks depend on seed, epoch and batch alone, and those of the validation spots are the same in
    every epoch: a validation loss differs from the last only by what was learned.
    """

    def __init__(self, network: Network, n_neighbors: int, settings: TrainTable) -> None:
        super().__init__()
        self.network = network
        self.n_neighbors = n_neighbors
        self.settings = settings

    def masks(self, batch: Batch, *stage: int) -> Tensor:
        """Draw the masks of a batch: centers × genes."""
        seed = np.random.SeedSequence([self.settings.seed, *stage]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        n_spots, n_genes = batch.centers.shape
        masks = draw_masks(n_spots, n_genes, self.settings.mask_fraction, generator)
        return masks.to(batch.centers.device)  # drawn on the CPU: the same whatever the device

    def validation_masks(self, batch: Batch, batch_idx: int) -> Tensor:
        """Draw the masks of a validation batch, the same in every epoch."""
        return self.masks(batch, _VALIDATION, batch_idx)

    def loss(self, batch: Batch, masks: Tensor) -> Tensor:
        """Hide, predict, compare."""
        hidden = torch.where(masks, batch.centers, 0.0)
        predicted = self.network(batch.mean - hidden / self.n_neighbors)
        return masked_error(predicted, batch.centers, masks)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of the published task."""
        loss = self.loss(batch, self.masks(batch, _TRAIN, self.current_epoch, batch_idx))
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(batch.centers))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the same on spots of patients that are held out."""
        loss = self.loss(batch, self.validation_masks(batch, batch_idx))
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch.centers))

    def configure_optimizers(self) -> Any:
        """Adam and a learning rate that falls when the validation loss stalls, as published."""
        optimizer = torch.optim.Adam(
            self.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=10)
        schedule = {"scheduler": plateau, "monitor": "validation_loss"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
