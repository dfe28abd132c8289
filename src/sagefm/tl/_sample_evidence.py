"""What drives the prediction of a sample: the part of each spot, and the slope of each gene."""

import numpy as np
import torch

from sagefm.model import Prepared, SageFM
from sagefm.nn import SparseRows
from sagefm.tl._sample_pooling import Readout
from sagefm.tl._sample_probe import Floats

_BLOCK = 1024
"""Spots whose hidden layers are kept for a derivative."""


def contrast(n_classes: int) -> Floats:
    """Set each class against the mean of the others: classes × classes, to multiply logits with."""
    return (np.eye(n_classes) * n_classes - 1) / (n_classes - 1)


def of_spots(model: SageFM, prepared: Prepared, readout: Readout, code: int) -> Floats:
    """Get what each spot adds to the log-odds of class `code` against the mean of the others.

    They add up to those of the slide, but for the intercept.
    """
    parts = readout.contributions(torch.from_numpy(model.embed(prepared))).numpy()
    return np.asarray(parts @ contrast(parts.shape[1])[code])


def of_genes(model: SageFM, prepared: Prepared, readout: Readout) -> Floats:
    """Differentiate the log-odds of each class by each gene, raised in every spot of the slide.

    The derivative goes by automatic differentiation through pooling and network, exactly; the
    first layer is linear, so that one product at the end serves all genes.

    Returns
    -------
    Classes × vocabulary: log-odds against the mean of the other classes, per unit of log1p counts.
    """
    z = torch.from_numpy(model.embed(prepared)).requires_grad_()
    logits = readout.contributions(z).sum(dim=0)
    odds = torch.from_numpy(contrast(len(logits))) @ logits
    # They sum to zero over the classes: the last follows from the others.
    by_z = [torch.autograd.grad(one, z, retain_graph=True)[0] for one in odds[:-1]]
    network, device = model.network, model.device
    with torch.inference_mode():
        rows = network.project(SparseRows.from_scipy(prepared.expression, device))
        around = torch.from_numpy(prepared.neighbors).to(device)
        inputs = [network.pool(rows, part) for part in torch.split(around, _BLOCK)]
    slopes = torch.zeros(len(by_z), network.first.shape[1], device=device)
    for number, block in enumerate(inputs):
        pooled = block.clone().requires_grad_()
        found = network.embed(pooled)
        at = slice(number * _BLOCK, (number + 1) * _BLOCK)
        for slope, wanted in zip(slopes, by_z, strict=True):
            given = wanted[at].to(found)
            slope += torch.autograd.grad(found, pooled, given, retain_graph=True)[0].sum(dim=0)
    with torch.no_grad():
        by_gene = (slopes @ network.first.T).double().cpu().numpy()
    return np.vstack([by_gene, -by_gene.sum(axis=0)])
