"""Several predictions of a masked count, weighed as it suits the slide at hand.

The network predicts in six ways: as it was trained, without its correction, with attention half
and twice as sharp, by the profile of the slide, and by that of the neighbors. What suits a slide
depends on how far it is from the training slides and on how many counts a gene has. So the six are
stacked (Wolpert, 1992; Breiman, 1996) by weights that are fitted on masked counts of the slide
itself, for genes of about the same abundance. All six leave the center out: a view with the masked
count would let the difference of two views tell it.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import MaskedGenes
from sagefm.nn.context.centers import ContextCenters
from sagefm.nn.masking import draw_masks

if TYPE_CHECKING:
    from sagefm.nn.context.encoded import ContextSlide

EDGES = (0.02, 0.07, 0.2, 0.7, 2.0)
"""Mean counts of a gene that divide the bins."""
N_VIEWS = 6
SHARPEN = (0.5, 2.0)
SPOTS = 512
"""Spots that weights are fitted on, at most."""
_FRACTION = 0.3
_BLOCK = 128
"""Spots whose views are in memory together."""
_PRIOR = 2000.0
"""Counts that speak for the first view alone."""


class Moments(NamedTuple):
    """Sums of products of the views, and with the true counts, of each bin."""

    products: Tensor
    """Bins × terms × terms; the terms are the views and a constant."""
    with_truth: Tensor
    """Bins × terms."""

    @classmethod
    def of(
        cls, slide: "ContextSlide", spots: Positions, bins: Tensor, rng: np.random.Generator
    ) -> Self:
        """Mask genes of some spots, and compare the views with the truth.

        Parameters
        ----------
        spots
            Rows of the slide; 512 of them are drawn if there are more.
        bins
            Genes: the bin of each.
        """
        measured = np.flatnonzero(slide.slide.measured)
        genes, n_terms = torch.from_numpy(measured).to(slide.device), N_VIEWS + 1
        spots = np.sort(rng.permutation(spots)[:SPOTS])
        mask = draw_masks(len(spots), len(genes), _FRACTION, rng).dense()
        masked = MaskedGenes(measured, mask.numpy())
        centers = slide.centers(slide.slide.neighbors[spots], masked)
        products = torch.zeros(len(EDGES) + 1, n_terms, n_terms, dtype=torch.float64)
        products = products.to(slide.device)
        with_truth = products[:, 0].clone()
        for rows, views in _views(centers, genes):
            truth = slide.slide.log1p[spots[rows]][:, measured].toarray()
            for number in bins[genes].unique(sorted=True).tolist():  # type: ignore[no-untyped-call]
                scored = mask[rows].to(slide.device) & (bins[genes] == number)
                true = torch.from_numpy(truth).to(slide.device)[scored]
                terms = torch.cat([views[:, scored], true.new_ones(1, len(true))])
                products[number] += (terms @ terms.T).double()
                with_truth[number] += (terms @ true).double()
        return cls(products, with_truth)


class Stack(NamedTuple):
    """The weights of the views."""

    bins: Tensor
    """Genes: the bin of each."""
    weights: Tensor
    """Bins × terms."""

    @classmethod
    def fit(cls, moments: Sequence[Moments], bins: Tensor) -> Self:
        """Fit the weights by least squares, drawn to the first view where there is little data."""
        products, with_truth = (sum(parts) for parts in zip(*moments, strict=True))
        # As if so many entries had been predicted by the first view, and by nothing else.
        scale = (products[:, 0, 0] / products[:, -1, -1].clamp(min=1)).clamp(min=1e-6)
        prior = _PRIOR * scale[:, None, None] * torch.eye(N_VIEWS + 1).to(products)
        weights = torch.linalg.solve(products + prior, with_truth + prior[:, :, 0])
        return cls(bins, weights.float())

    def predict(self, centers: ContextCenters, genes: Tensor) -> Tensor:
        """Predict log1p counts of measured genes: centers × genes."""
        weights = self.weights[self.bins[genes]].T
        return torch.cat(
            [
                (torch.einsum("vcg,vg->cg", views, weights[:-1]) + weights[-1]).clamp(min=0)
                for _, views in _views(centers, genes)
            ]
        )


def bins_of(mean: Tensor) -> Tensor:
    """Get the bin of each gene by its mean counts."""
    return torch.bucketize(mean, torch.tensor(EDGES, device=mean.device))


def _views(centers: ContextCenters, genes: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Predict in six ways, some centers at a time: views × centers × genes, log1p counts."""
    others = [centers.sharpened(factor) for factor in SHARPEN]
    for rows in centers.blocks(_BLOCK):
        sharpened = torch.stack([other.predict_block(genes, rows) for other in others])
        yield rows, torch.cat([centers.views(genes, rows), sharpened])
