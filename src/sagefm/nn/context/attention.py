"""What the context network makes of some centers: whom it compares them with, and what it pools."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import MaskedGenes
from sagefm.nn.context.network import NEAR
from sagefm.nn.context.slide import Slide
from sagefm.nn.sparse import columns_of, sum_over

CENTERS = 512
"""Centers whose rows of genes stand in memory together."""


class Attention(NamedTuple):
    """What the network makes of some centers."""

    pooled: Tensor
    to_landmarks: Tensor
    """Centers × landmarks: how much each stands for the center."""
    to_ring: Tensor
    """Centers × neighbors: the same; both together sum to 1."""
    level: Tensor
    """(centers) how much leans on the slide."""
    depth: Tensor
    """(centers) visible counts."""


def attend(slide: Slide, neighbors: Positions, hidden: MaskedGenes | None) -> Attention:
    """Let the network see centers; what they hide is taken out of all that it looks at."""
    network = slide.network
    at = torch.from_numpy(neighbors).to(slide.device)
    parts = torch.split(at, [1, NEAR, at.shape[1] - 1 - NEAR], dim=1)
    means = [slide.residuals[part].mean(dim=1) for part in parts]
    depths = [slide.depths[part].mean(dim=1) for part in parts]
    visible = depths[0]
    if hidden is not None:
        masked = _Masked(slide, hidden, len(neighbors))
        for i, part in enumerate(parts if hidden.around else parts[:1]):
            means[i], depths[i] = masked.residuals(part)
        visible = depths[0] * masked.shown
    center, near, far = means
    sizes = torch.tensor([part.shape[1] for part in parts[1:]], device=slide.device)
    share = sizes / sizes.sum()
    ring_depth = share[0] * depths[1] + share[1] * depths[2]
    n_measured = slide.measured.sum()
    facts = network.describe(depths[0], ring_depth, slide.depths.mean(), n_measured)
    query = network.queries(center, share[0] * near + share[1] * far)
    bonus = network.bonus.repeat_interleave(sizes)
    if hidden is not None and hidden.around:
        bonus = torch.full_like(bonus, -torch.inf)
    to_landmarks, to_ring = _weigh(slide, at, query, network.sharpness(facts).exp(), bonus)
    similar = to_landmarks @ slide.residuals[slide.landmarks]
    similar = similar + torch.einsum("cr,crw->cw", to_ring, slide.residuals[at[:, 1:]])
    unusual = network.project_slide(slide.table.profile, slide.measured).expand(len(at), -1)
    operators = dict(zip(network.OPERATORS, (*means, similar, unusual), strict=True))
    pooled = network.pool(operators, facts)
    return Attention(pooled, to_landmarks, to_ring, network.level(facts).squeeze(1), visible)


def _weigh(
    slide: Slide, at: Tensor, query: Tensor, sharpness: Tensor, bonus: Tensor
) -> tuple[Tensor, Tensor]:
    """Say how much each landmark, and each neighbor, stands for a center."""
    marks = F.pad(sharpness * (query @ slide.keys[slide.landmarks].T), (0, 1))
    # A neighbor that is a landmark counts as a neighbor; the center does not count.
    marks = marks.scatter(1, slide.place[at], -torch.inf)[:, :-1]
    ring = sharpness * torch.einsum("ck,crk->cr", query, slide.keys[at[:, 1:]]) + bonus
    weights = torch.cat([marks, ring], dim=1).softmax(dim=1)
    weights = weights.nan_to_num(0)  # where nobody is left
    to_landmarks, to_ring = torch.split(weights, [marks.shape[1], ring.shape[1]], dim=1)
    return to_landmarks, to_ring


class _Masked:
    """Residuals of spots without what some centers hide."""

    def __init__(self, slide: Slide, hidden: MaskedGenes, n_centers: int) -> None:
        self._slide = slide
        self._genes = torch.from_numpy(hidden.genes).to(slide.device)
        self._counts = columns_of(slide.counts, hidden.genes)
        self._log = columns_of(slide.expression, hidden.genes)
        self._mask = (
            torch.ones(n_centers, 1, device=slide.device)
            if hidden.mask is None
            else torch.from_numpy(hidden.mask).to(slide.device).float()
        )
        profile = slide.table.profile[self._genes].expand(self._mask.shape[0], -1)
        self.shown = (1 - (self._mask * profile).sum(dim=1)).clamp(min=1e-6)

    def residuals(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Average the residuals of what is left of spots (centers × spots).

        Returns
        -------
        Also their counts, made up for what is hidden as if it were like the slide's.
        """
        slide, whole = self._slide, self._slide.depths[at]
        left = whole.mean(dim=1) - self._mean(self._counts, at).sum(dim=1)
        made_up = left.clamp(min=0) / self.shown
        scale = made_up / whole.mean(dim=1).clamp(min=1e-6)
        weights = slide.table.weights(whole * scale[:, None]).mean(dim=1)
        expected = self._mask * (weights @ slide.table.expected[:, self._genes])
        unseen = (self._mean(self._log, at) - expected) @ slide.network.first[self._genes]
        return slide.projected[at].mean(dim=1) - weights @ slide.expected - unseen, made_up

    def _mean(self, values: csr_matrix, at: Tensor) -> Tensor:
        """Average what is hidden over spots: centers × genes."""
        total = self._slide.dense(sum_over(values, at.cpu().numpy()))
        return self._mask * total / at.shape[1]
