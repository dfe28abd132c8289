"""Several predictions of a masked count, weighed as it suits the slide at hand.

The network predicts in six ways: as it was trained, without its correction, with attention half
and twice as sharp, by the profile of the slide, and by that of the neighbors. What suits a slide
depends on how far it is from the training slides and on how many counts a gene has. So the six are
stacked (Wolpert, 1992; Breiman, 1996) by weights that are fitted on masked counts of the slide
itself, for genes of about the same abundance. All six leave the center out: a view with the masked
count would let the difference of two views tell it.
"""

from collections.abc import Sequence
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
        genes = np.flatnonzero(slide.slide.measured)
        spots = np.sort(rng.permutation(spots)[:SPOTS])
        n_terms, device = N_VIEWS + 1, slide.device
        products = torch.zeros(len(EDGES) + 1, n_terms, n_terms, dtype=torch.float64, device=device)
        with_truth = products[:, 0].clone()
        of_gene = bins[torch.from_numpy(genes).to(device)]
        for start in range(0, len(spots), _BLOCK):
            rows = spots[start : start + _BLOCK]
            mask = draw_masks(len(rows), len(genes), _FRACTION, rng).dense()
            masked = MaskedGenes(genes, mask.numpy())
            views = _views(slide, slide.slide.neighbors[rows], masked, genes)
            truth = torch.from_numpy(slide.slide.log1p[rows][:, genes].toarray()).to(device)
            scored = mask.to(device)
            for number in of_gene.unique().tolist():
                chosen = scored & (of_gene == number)
                terms = torch.cat([views[:, chosen], truth.new_ones(1, int(chosen.sum()))])
                products[number] += (terms @ terms.T).double()
                with_truth[number] += (terms @ truth[chosen]).double()
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

    def predict(
        self,
        slide: "ContextSlide",
        neighbors: Positions,
        masked: MaskedGenes,
        genes: Positions,
    ) -> Tensor:
        """Predict log1p counts of measured genes: centers × genes."""
        parts = []
        for start in range(0, len(neighbors), _BLOCK):
            rows = slice(start, start + _BLOCK)
            mask = None if masked.mask is None else masked.mask[rows]
            views = _views(slide, neighbors[rows], masked._replace(mask=mask), genes)
            of_gene = self.weights[self.bins[torch.from_numpy(genes).to(slide.device)]].T
            parts.append(torch.einsum("vcg,vg->cg", views, of_gene[:-1]) + of_gene[-1])
        return torch.cat(parts).clamp(min=0)


def bins_of(mean: Tensor) -> Tensor:
    """Get the bin of each gene by its mean counts."""
    return torch.bucketize(mean, torch.tensor(EDGES, device=mean.device))


def _views(
    slide: "ContextSlide", neighbors: Positions, masked: MaskedGenes, genes: Positions
) -> Tensor:
    """Predict in six ways: views × centers × genes, log1p counts."""
    plain = ContextCenters(slide, neighbors, masked).views(genes)
    at = torch.from_numpy(genes).to(slide.device)
    others = [ContextCenters(slide, neighbors, masked, factor).predict(at) for factor in SHARPEN]
    return torch.cat([plain, torch.stack(others)])
