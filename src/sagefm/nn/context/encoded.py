"""A slide as the context network encodes it.

Nothing dense is as large as spots × genes: centers are compared with their neighbors and with at
most 1,024 other spots (landmarks), and predictions are made for some hundred centers at a time.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from sagefm._types import Positions, Singles
from sagefm.nn.base import EncodedSlide, MaskedGenes, Parts
from sagefm.nn.context.absent import AbsentGenes
from sagefm.nn.context.background import Background
from sagefm.nn.context.centers import ContextCenters
from sagefm.nn.context.network import Context, Spots
from sagefm.nn.sparse import project_log1p, sum_over

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

_BLOCK = 8192
"""Spots whose counts are converted together."""
_SHORTEST = 1e-12
"""Lower bound of lengths."""


class ContextSlide(EncodedSlide):
    """A slide of one section, with what the network computes of it only once, when it is needed.

    Parameters
    ----------
    slide
        Its counts and log1p counts, and which genes it measured.
    """

    def __init__(self, network: Context, slide: "AlignedSlide") -> None:
        self.network, self.device = network, network.device
        self.slide, self.counts = slide, slide.counts
        self.measured = torch.from_numpy(slide.measured).to(self.device)
        self.library_size = self._tensor(self.counts.sum(axis=1))
        self.total = self._tensor(self.counts.sum(axis=0))

    def _tensor(self, values: ArrayLike) -> Tensor:
        flat = np.asarray(values, dtype=np.float32).ravel()
        return torch.from_numpy(flat).to(self.device)

    @cached_property
    def projected(self) -> Tensor:
        """Spots × width: log1p counts times the first-layer weights."""
        return project_log1p(self.counts, self.network.first)

    @cached_property
    def background(self) -> Background:
        """Mean log1p counts of random draws from the slide."""
        return Background.of(self.total, self.library_size)

    @cached_property
    def expected(self) -> Tensor:
        """Sizes × width: the background times the first-layer weights."""
        return self.background.expected @ self.network.first

    @cached_property
    def residuals(self) -> Tensor:
        """Spots × width."""
        return self.projected - self.background.weights(self.library_size) @ self.expected

    @cached_property
    def spots(self) -> Spots:
        """The spots, as the formula of the network needs them."""
        landmarks, residuals = self._landmarks(), self.residuals
        place = torch.full_like(self.library_size, len(landmarks), dtype=torch.long)
        place[landmarks] = torch.arange(len(landmarks), device=self.device)
        keys = self.network.keys(residuals)
        return Spots(
            self.background, self.library_size, residuals, keys, landmarks, place, self.measured
        )

    @cached_property
    def absent(self) -> AbsentGenes | None:
        """Predictions of genes that the slide lacks, if the network was trained for it."""
        fitted = self.network.absent
        if fitted is None:
            return None
        return AbsentGenes(fitted, self.counts, self.library_size, self.measured)

    def _landmarks(self) -> Tensor:
        """Choose the spots that every center is compared with: all of a small slide.

        Of a large one they are evenly spaced by library size. That depends neither on the order of
        the spots nor on the last bits of the weights: sums of counts, and what breaks their ties,
        are whole numbers.
        """
        n_spots, most = len(self.library_size), self.network.MOST
        if n_spots <= most:
            return torch.arange(n_spots, device=self.device)
        numbers = np.stack([np.arange(self.counts.shape[1]), np.ones(self.counts.shape[1])], axis=1)
        blocks = [self.counts[start : start + _BLOCK] for start in range(0, n_spots, _BLOCK)]
        order = np.lexsort(np.concatenate([block @ numbers for block in blocks]).T)
        chosen = order[np.linspace(0, n_spots - 1, most).round().astype(np.int64)]
        return torch.from_numpy(np.sort(chosen)).to(self.device)

    def centers(self, neighbors: Positions, masked: MaskedGenes | None = None) -> ContextCenters:
        """Attend from some centers, all of their genes visible or some masked."""
        return ContextCenters(self, neighbors, masked)

    def embed(self, neighbors: Positions) -> Tensor:
        """Embed some centers: the mean over their neighborhoods of the embeddings of spots."""
        rows = torch.from_numpy(neighbors).to(self.device)
        return F.embedding_bag(rows, self._embedded, mode="mean")

    @cached_property
    def _embedded(self) -> Tensor:
        return self.network.embed(self.residuals)

    def explain(self, neighbors: Positions, baseline: Positions, steps: int) -> Parts:
        """Attribute the difference of one embedding from that of a baseline to genes.

        The baseline is a spot of the mean residual. Exact in one step: see :func:`_secants`.
        """
        residuals, network = self.residuals, self.network
        rows = torch.from_numpy(neighbors.ravel()).to(self.device)
        before = residuals[torch.from_numpy(baseline).to(self.device)].mean(dim=(0, 1))
        after = residuals[rows]
        direction = network.embed(after).mean(dim=0) - network.embed(before)
        direction = F.normalize(direction, dim=0) / len(rows)
        sizes = [len(view) for view, _ in network.views]
        by_spot = torch.zeros_like(after)
        for (view, scale), part in zip(network.views, torch.split(direction, sizes), strict=True):
            by_spot += scale * _secants(view @ before, after @ view.T, part) @ view
        by_gene = (by_spot @ network.first.T).cpu().numpy()
        parts = by_gene * (self._residuals(neighbors.ravel()) - self._mean_residuals(baseline))
        return parts[0], parts[1:].sum(axis=0)

    def _residuals(self, rows: Positions) -> Singles:
        """Subtract the background from log1p counts of a few spots: spots × genes."""
        sizes = self.library_size[torch.from_numpy(rows).to(self.device)]
        expected = self.background.weights(sizes) @ self.background.expected
        residuals: Singles = self.slide.log1p[rows].toarray() - expected.cpu().numpy()
        return residuals

    def _mean_residuals(self, neighbors: Positions) -> Singles:
        """Average the residuals of genes over all spots of some neighborhoods."""
        sizes = self.library_size[torch.from_numpy(neighbors.ravel()).to(self.device)]
        expected = self.background.weights(sizes).mean(dim=0) @ self.background.expected
        total = self._tensor(sum_over(self.slide.log1p, neighbors).sum(axis=0))
        mean: Singles = (total / neighbors.size - expected).cpu().numpy()
        return mean

    def pull_back(self, neighbors: Positions, gradients: Tensor) -> Tensor:
        """Turn derivatives by the embeddings into derivatives by all projected spots at once."""
        residuals, total = self.residuals, []
        with torch.inference_mode(False), torch.enable_grad():
            rows = torch.from_numpy(neighbors).to(self.device)
            residuals = residuals.detach().clone().requires_grad_()
            embedded = F.embedding_bag(rows, self.network.embed(residuals), mode="mean")
            for gradient in gradients.clone():
                [by_spot] = torch.autograd.grad(embedded, residuals, gradient, retain_graph=True)
                total.append(by_spot.sum(dim=0))
        return torch.stack(total)


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
