"""What drives the prediction of a sample: the part of each spot, and the slope of each gene."""

import numpy as np
import torch

from sagefm._types import Floats
from sagefm.model import SageFM
from sagefm.pp.aligned import AlignedSlide
from sagefm.tl.subtyping._pooling import Readout


def contrast(n_classes: int) -> Floats:
    """Set each class against the mean of the others: classes × classes, to multiply logits with."""
    return (np.eye(n_classes) * n_classes - 1) / (n_classes - 1)


def of_spots(model: SageFM, prepared: AlignedSlide, readout: Readout, code: int) -> Floats:
    """Get what each spot adds to the log-odds of class `code` against the mean of the others.

    They add up to those of the slide, but for the intercept.
    """
    parts = readout.contributions(torch.from_numpy(model.embed(prepared))).numpy()
    return np.asarray(parts @ contrast(parts.shape[1])[code])


def of_genes(model: SageFM, prepared: AlignedSlide, readout: Readout) -> Floats:
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
    given = torch.stack(by_z).to(model.device)
    slopes = model.encode(prepared).pull_back(prepared.neighbors, given)
    with torch.no_grad():
        by_gene = (slopes @ model.network.first.T).double().cpu().numpy()
    return np.vstack([by_gene, -by_gene.sum(axis=0)])
