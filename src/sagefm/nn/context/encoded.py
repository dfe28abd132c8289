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
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Bools, Floats, Positions, Singles
from sagefm.nn.base import EncodedSlide, MaskedGenes, Parts
from sagefm.nn.context.absent import AbsentGenes
from sagefm.nn.context.centers import ContextCenters
from sagefm.nn.context.network import Context, Spots
from sagefm.nn.context.whole import SlideBackground, WholeSlide
from sagefm.nn.sparse import columns_of, project_log1p, sum_over
from sagefm.stats.sums import column_sums, row_sums

if TYPE_CHECKING:
    from sagefm.nn.context.stack import Stack
    from sagefm.pp.aligned import AlignedSlide

_SHORTEST = 1e-12
"""Lower bound of lengths."""
_FEW = 64
"""Genes whose counts, picked from all, are kept."""


class ContextSlide(EncodedSlide):
    """A slide of one section, or a part of it, with what the network computes of it only once.

    Parameters
    ----------
    slide
        Its counts and log1p counts, and which genes it measured.
    stack
        Weights of several predictions, fitted to the slide; the network alone predicts if not
        given.
    profile
        (genes) fractions of counts that all spots are compared with, for embeddings that can be
        compared between slides; the profile of the slide itself if not given.
    part_of
        The whole slide and the rows there, in ascending order, if `slide` is only a part: its
        landmarks must be among them.
    """

    def __init__(
        self,
        network: Context,
        slide: "AlignedSlide",
        stack: "Stack | None" = None,
        profile: Tensor | None = None,
        part_of: tuple[WholeSlide, Positions] | None = None,
    ) -> None:
        self.network, self.device, self.stack = network, network.device, stack
        self.slide, self.counts = slide, slide.counts
        self.measured = torch.from_numpy(slide.measured).to(self.device)
        self.library_size = self._tensor(row_sums(self.counts))
        if part_of is None:
            self.whole, rows = self._own(profile), None
            self.landmarks = self.whole.landmarks
        else:
            self.whole, rows = part_of
            self.landmarks = np.searchsorted(rows, self.whole.landmarks)
        self._columns: tuple[bytes, csr_matrix] | None = None

    def _tensor(self, values: ArrayLike) -> Tensor:
        flat = np.asarray(values, dtype=np.float32).ravel()
        return torch.from_numpy(flat).to(self.device)

    def _own(self, profile: Tensor | None) -> WholeSlide:
        slide, counts = self.slide, self.counts

        def totals(chosen: Bools) -> Floats:
            return np.stack([column_sums(counts, rows) for rows in chosen])

        total = column_sums(counts)
        sizes = self.library_size.cpu().numpy()
        return WholeSlide(self.network, sizes, total, slide.neighbors, slide.rank, totals, profile)

    @property
    def total(self) -> Tensor:
        """(genes) counts over the whole slide."""
        return self.whole.total

    def columns(self, genes: Tensor) -> csr_matrix:
        """Pick counts of genes; a few of them are kept until others are asked for."""
        wanted = genes.cpu().numpy()
        if len(wanted) > _FEW:
            return columns_of(self.counts, wanted)
        key = wanted.tobytes()
        if self._columns is None or self._columns[0] != key:
            self._columns = key, columns_of(self.counts, wanted)
        return self._columns[1]

    @cached_property
    def projected(self) -> Tensor:
        """Spots × width: log1p counts times the first-layer weights."""
        return project_log1p(self.counts, self.network.first)

    @property
    def expected(self) -> SlideBackground:
        """The background of all spots."""
        return self.whole.expected

    @cached_property
    def residuals(self) -> Tensor:
        """Spots × width."""
        return self.whole.residuals(self.projected, self.library_size)

    def folds(self, centers: Positions, *, neighbors_masked: bool) -> Positions:
        """Divide centers into folds by place: (centers) the number of the fold of each."""
        return self.whole.folds(self.slide.rank[centers], neighbors_masked=neighbors_masked)

    def expected_of(self, fold: int, *, neighbors_masked: bool) -> SlideBackground:
        """Compute the background of a fold: see :meth:`WholeSlide.expected_of`."""
        return self.whole.expected_of(fold, neighbors_masked=neighbors_masked)

    def spots(self, rows: Positions, expected: SlideBackground) -> Spots:
        """Get some spots, the landmarks among them, as the formula of the network needs them.

        Parameters
        ----------
        rows
            Of the slide, in ascending order.
        expected
            The background to compare with.
        """
        at = torch.from_numpy(rows).to(self.device)
        size = self.library_size[at]
        residuals = self.projected[at] - expected.background.weights(size) @ expected.projected
        landmarks = torch.from_numpy(np.searchsorted(rows, self.landmarks)).to(self.device)
        place = torch.full_like(at, len(landmarks))
        place[landmarks] = torch.arange(len(landmarks), device=self.device)
        keys = self.network.keys(residuals)
        return Spots(expected.background, size, residuals, keys, landmarks, place, self.measured)

    @cached_property
    def absent(self) -> AbsentGenes | None:
        """Predictions of genes that the slide lacks, if the network was trained for it."""
        fitted = self.network.absent
        if fitted is None:
            return None
        return AbsentGenes(
            fitted, self.counts, self.library_size, self.measured, self.whole.library_size
        )

    def decoder(self, genes: Tensor) -> Tensor:
        """Pick D of each gene, the one for missing genes where the slide lacks it."""
        network, measured = self.network, self.measured[genes]
        return torch.where(measured[:, None], network.decoder[genes], network.missing[genes])

    def base(self, level: Tensor, genes: Tensor, profiles: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mix profiles of those genes that the slide has; of others it is the usual profile.

        Parameters
        ----------
        profiles
            As :meth:`Context.base` needs them.

        Returns
        -------
        Centers × genes.
        """
        base, measured = self.network.base(level, *profiles), self.measured[genes]
        if not measured.all():
            usual = self.network.usual_profile(self.measured)[genes].repeat(len(base), 1)
            base = usual.index_copy_(1, measured.nonzero().squeeze(1), base)
        return base

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
        background = self.expected.background
        expected = background.weights(sizes) @ background.expected
        residuals: Singles = self.slide.log1p[rows].toarray() - expected.cpu().numpy()
        return residuals

    def _mean_residuals(self, neighbors: Positions) -> Singles:
        """Average the residuals of genes over all spots of some neighborhoods."""
        sizes = self.library_size[torch.from_numpy(neighbors.ravel()).to(self.device)]
        background = self.expected.background
        expected = background.weights(sizes).mean(dim=0) @ background.expected
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
