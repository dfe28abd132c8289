"""Explain the prediction of a patient: the contribution of each spot, the slope of each gene."""

import numpy as np
import torch

from sagefm._types import Floats, Singles
from sagefm.model import SageFM
from sagefm.pp.aligned import AlignedSlide
from sagefm.tl.patients import Readout


def contrasts(n_classes: int) -> Floats:
    """Get the weights that compare each class with the mean of the others: classes × classes."""
    return (np.eye(n_classes) * n_classes - 1) / (n_classes - 1)


def spot_evidence(z: Singles, readout: Readout, code: int) -> Floats:
    """Compute what each spot adds to the log-odds of class `code` against the mean of the others.

    The sum over spots is the log-odds of the slide without the intercept.
    """
    logits = readout.contributions(torch.from_numpy(z)).numpy()
    return np.asarray(logits @ contrasts(logits.shape[1])[code])


def gene_slopes(model: SageFM, aligned: AlignedSlide, z: Singles, readout: Readout) -> Floats:
    """Differentiate the log-odds of each class by each gene, raised in every spot of the slide.

    Automatic differentiation goes through pooling and network. The first layer is linear, so that
    one product at the end gives the slopes of all genes.

    Parameters
    ----------
    model
        A model.
    aligned
        A slide.
    z
        Its embedding.
    readout
        What turns the embedding into logits.

    Returns
    -------
    Classes × vocabulary: log-odds against the mean of the other classes, per unit of log1p counts.
    """
    embedding = torch.from_numpy(z).requires_grad_()
    logits = readout.contributions(embedding).sum(dim=0)
    log_odds = torch.from_numpy(contrasts(len(logits))) @ logits
    # They sum to zero over the classes: the last follows from the others.
    by_z = [torch.autograd.grad(one, embedding, retain_graph=True)[0] for one in log_odds[:-1]]
    gradients = torch.stack(by_z).to(model.device)
    slopes = model.encode(aligned).pull_back(aligned.neighbors, gradients)
    with torch.no_grad():
        by_gene = (slopes @ model.network.first.T).double().cpu().numpy()
    return np.vstack([by_gene, -by_gene.sum(axis=0)])
