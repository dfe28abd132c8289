"""A slide as the context network reads it.

Nothing dense is as large as spots × genes: centers are compared with their neighbors and with at
most 1,024 other spots (landmarks), and predictions are made for some hundred centers at a time.
"""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import EncodedSlide, MaskedGenes, Parts
from sagefm.nn.context.attention import CENTERS, Attention, attend
from sagefm.nn.context.centers import ContextCenters
from sagefm.nn.context.network import Context
from sagefm.nn.context.slide import Slide

_SHORTEST = 1e-12
"""What a length is at least."""


class EncodedByContext(EncodedSlide):
    """A slide behind all that the network computes of it once.

    Parameters
    ----------
    expression
        Spots × genes, log1p counts, float32.
    measured
        Genes: which of them the slide has.
    """

    def __init__(
        self, network: Context, expression: csr_matrix, measured: NDArray[np.bool_]
    ) -> None:
        self._slide = Slide(network, expression, measured)

    def centers(self, neighbors: Positions, hidden: MaskedGenes | None = None) -> "ContextCenters":
        """See some centers."""
        if hidden is not None:
            hidden = self._telling(hidden)
        parts = [
            attend(self._slide, neighbors[start : start + CENTERS], _of(hidden, start))
            for start in range(0, len(neighbors), CENTERS)
        ]
        joined = Attention(*(torch.cat(part) for part in zip(*parts, strict=True)))
        return ContextCenters(self._slide, neighbors, hidden, joined)

    def _telling(self, hidden: MaskedGenes) -> MaskedGenes:
        """Leave out what hides nothing: genes that the slide lacks, or that no center hides."""
        tells = self._slide.measured.cpu().numpy()[hidden.genes]
        if hidden.mask is None:
            return hidden._replace(genes=hidden.genes[tells])
        tells &= hidden.mask.any(axis=0)
        return hidden._replace(genes=hidden.genes[tells], mask=hidden.mask[:, tells])

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers: the mean over their neighborhoods of what tissue each spot is."""
        around = torch.from_numpy(neighbors).to(self._slide.device)
        embedded: Tensor = F.embedding_bag(around, self._signs, mode="mean")
        return embedded

    @cached_property
    def _signs(self) -> Tensor:
        return self._slide.network.sign(self._slide.residuals)

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Say which genes set the embedding of one center apart from that of a baseline.

        The baseline is a spot of its mean residual. Exact in one step: see :func:`_secants`.
        """
        slide, network = self._slide, self._slide.network
        around = torch.from_numpy(neighbors.ravel()).to(slide.device)
        before = slide.residuals[torch.from_numpy(baseline).to(slide.device)].mean(dim=(0, 1))
        after = slide.residuals[around]
        toward = network.sign(after).mean(dim=0) - network.sign(before)
        toward = F.normalize(toward, dim=0) / len(around)
        by_spot = torch.zeros_like(after)
        for (view, scale), part in zip(network.views, self._split(toward), strict=True):
            by_spot += scale * _secants(view @ before, after @ view.T, part) @ view
        by_gene = (by_spot @ network.first.T).cpu().numpy()
        parts = by_gene * (slide.of_genes(neighbors.ravel()) - slide.mean_of_genes(baseline))
        return parts[0], parts[1:].sum(axis=0)

    def pull_back(self, neighbors: Positions, given: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once."""
        slide = self._slide
        around = torch.from_numpy(neighbors).to(slide.device)
        each = (given / neighbors.shape[1]).repeat_interleave(neighbors.shape[1], dim=1)
        by_spot = given.new_zeros(len(given), *self._signs.shape)
        by_spot.index_add_(1, around.ravel(), each)
        pulled = given.new_zeros(len(given), slide.residuals.shape[1])
        for (view, scale), part in zip(slide.network.views, self._split(by_spot), strict=True):
            seen = slide.residuals @ view.T
            unit = F.normalize(seen, dim=1)
            across = part - (part * unit).sum(dim=2, keepdim=True) * unit
            lengths = seen.norm(dim=1, keepdim=True).clamp(min=_SHORTEST)
            pulled += scale * (across / lengths).sum(dim=1) @ view
        return pulled

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Take what belongs to an embedding apart, view by view."""
        sizes = [len(view) for view, _ in self._slide.network.views]
        return torch.split(values, sizes, dim=-1)


def _secants(before: Tensor, after: Tensor, direction: Tensor) -> Tensor:
    """Average the derivatives of unit vectors, along a direction, between two ends: spots × width.

    With a = s · u, n = |s| and b, m of another vector t, a/n - b/m is half of
    (a - b)(1/n + 1/m) + (a + b)(1/n - 1/m), and n² - m² = (s + t)·(s - t): so the difference is a
    vector times s - t.
    """
    n = after.norm(dim=1, keepdim=True).clamp(min=_SHORTEST)
    m = before.norm().clamp(min=_SHORTEST)
    along = (after @ direction)[:, None] + before @ direction
    bent = along * (after + before) / (2 * n * m * (n + m))
    secants: Tensor = (1 / n + 1 / m) * direction / 2 - bent
    return secants


def _of(hidden: MaskedGenes | None, start: int) -> MaskedGenes | None:
    """Take what the centers from `start` on hide, as many as stand in memory together."""
    if hidden is None or hidden.mask is None:
        return hidden
    return hidden._replace(mask=hidden.mask[start : start + CENTERS])
