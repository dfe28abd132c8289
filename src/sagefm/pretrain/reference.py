"""What predictors without a network lose on the very task that a network is trained on."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from sagefm.pretrain.module import Pretraining, masked_error
from sagefm.pretrain.spots import Batch


def reference_losses(
    module: Pretraining,
    gene_mean: Tensor,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Score the gene mean and the neighbor mean with the masks and the loss of validation.

    Parameters
    ----------
    gene_mean
        Mean log1p count of each gene over the training spots.
    batches
        The validation batches.

    Returns
    -------
    ``gene_mean`` and ``neighbor_mean`` (mean over the center's 14 neighbors): mean squared error
    on log1p counts.
    """
    losses: dict[str, list[float]] = {"gene_mean": [], "neighbor_mean": []}
    sizes = []
    for batch_idx, batch in enumerate(batches):
        masks = module.validation_masks(batch, batch_idx)
        k = module.n_neighbors
        around = (k * batch.mean - batch.centers) / (k - 1)
        losses["gene_mean"].append(float(masked_error(gene_mean, batch.centers, masks)))
        losses["neighbor_mean"].append(float(masked_error(around, batch.centers, masks)))
        sizes.append(len(batch.centers))
    return {name: float(np.average(values, weights=sizes)) for name, values in losses.items()}
