"""Losses of two predictors without a network on the task that a network is trained on."""

from collections.abc import Iterable
from math import nan

import torch
from torch import Tensor

from sagefm.pretrain.batches import Batch


def reference_losses(
    gene_mean: Tensor, batches: Iterable[Batch], n_neighbors: int
) -> dict[str, float]:
    """Compute the validation loss of the gene mean and of the neighbor mean.

    Parameters
    ----------
    gene_mean
        Mean log1p count of each gene over the training spots.
    batches
        The validation batches.
    n_neighbors
        Spots in a neighborhood, the center included.

    Returns
    -------
    ``gene_mean`` and ``neighbor_mean`` (mean over the center's 14 neighbors): mean squared error
    on log1p counts; NaN without batches.
    """
    errors = {"gene_mean": 0.0, "neighbor_mean": 0.0}
    entries = 0
    for batch in batches:
        truth, scored = batch.truth, batch.scored()
        entries += batch.n_masked
        around = (n_neighbors * batch.means() - truth) / (n_neighbors - 1)
        for name, guess in (("gene_mean", gene_mean[batch.masks.order]), ("neighbor_mean", around)):
            error = torch.where(scored, guess - truth, 0.0)
            errors[name] += float(error.double().square().sum())
    return {name: error / entries if entries else nan for name, error in errors.items()}
