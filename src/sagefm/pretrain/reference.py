"""What predictors without a network lose on the very task that a network is trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sagefm.pretrain.batches import Batch


def reference_losses(
    gene_mean: Tensor, batches: Iterable[Batch], n_neighbors: int
) -> dict[str, float]:
    """Score the gene mean and the neighbor mean with the masks and the loss of validation.

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
    on log1p counts.
    """
    errors = {"gene_mean": 0.0, "neighbor_mean": 0.0}
    entries = 0
    for batch in batches:
        hidden = batch.masks.hidden()
        entries += batch.n_hidden
        around = (n_neighbors * _means(batch) - batch.truth) / (n_neighbors - 1)
        for name, guess in (("gene_mean", gene_mean[batch.masks.order]), ("neighbor_mean", around)):
            error = torch.where(hidden, guess - batch.truth, 0.0)
            errors[name] += float(error.double().square().sum())
    return {name: error / entries for name, error in errors.items()}


def _means(batch: Batch) -> Tensor:
    """Average over the neighborhoods, nothing hidden: centers × genes in the order of the masks."""
    dense = batch.rows.dense(len(batch.masks.order))
    parts = torch.split(dense, [a.shape[1] for a in batch.operators])
    shown = [
        a[:, : -len(a)] @ x[: -len(a)]  # the last rows are what the centers hide
        for a, x in zip(batch.operators, parts, strict=True)
    ]
    return torch.cat(shown)[:, batch.masks.order]
