"""Some spots of a slide as the context network sees them, and what it predicts there."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import Centers, MaskedGenes, Where
from sagefm.nn.context.attention import CENTERS, Attention
from sagefm.nn.context.background import log1p_mean
from sagefm.nn.context.gradient import mean_gradients
from sagefm.nn.context.network import NEAR
from sagefm.nn.context.slide import Slide
from sagefm.nn.sparse import columns_of, sum_over

Profiles = tuple[Tensor, Tensor, Tensor]
OPERATORS = ("center", "near", "far", "similar")
"""Those that average over spots of the neighborhood, in the order of shares and changes."""


class ContextCenters(Centers):
    """Some centers, what they hide, and what stands for them.

    Parameters
    ----------
    sight
        What the network makes of them.
    """

    def __init__(
        self, slide: Slide, neighbors: Positions, hidden: MaskedGenes | None, sight: Attention
    ) -> None:
        self._slide, self._sight = slide, sight
        self._neighbors, self._hidden = neighbors, hidden
        self.pooled = sight.pooled
        self._kept: dict[bytes, Tensor] = {}
        self._scales: dict[int, Tensor] = {}

    @cached_property
    def _z(self) -> Tensor:
        return self._slide.network.embed(self.pooled)

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        if genes is None:
            genes = torch.arange(len(self._slide.total), device=self._slide.device)
        return torch.cat(
            [
                log1p_mean(self._rates(self._base(genes, rows), self._z[rows], genes))
                for rows in self._blocks()
            ]
        )

    @property
    def shares(self) -> NDArray[np.float64]:
        """Operators (center, near, far, similar) × centers × places."""
        n_centers, size = self._neighbors.shape
        shares = np.zeros((len(OPERATORS), n_centers, size))
        shares[0, :, 0] = 1
        shares[1, :, 1 : 1 + NEAR] = 1 / NEAR
        shares[2, :, 1 + NEAR :] = 1 / (size - 1 - NEAR)
        shares[3, :, 1:] = self._sight.to_ring.cpu().numpy()
        return shares

    def unchanged(self, wanted: Tensor) -> Tensor:
        """Predict as things are."""
        return log1p_mean(self._rates(self._kept_base(wanted), self._z, wanted))

    def changed(self, genes: Tensor, change: Tensor, wanted: Tensor) -> Tensor:
        """Predict after genes were changed, with weights, depths and base as they are."""
        network = self._slide.network
        base, z = self._kept_base(wanted), self._z.clone()
        rows = (change != 0).any(dim=2).any(dim=0).nonzero().squeeze(1)
        weights, pooled = network.first[genes], self.pooled[rows]
        for name, amount in zip(OPERATORS, change, strict=True):
            pooled = pooled + amount[rows] @ network.mix(name, weights)
        z[rows] = network.embed(pooled)
        return log1p_mean(self._rates(base, z, wanted))

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        network, shown = self._slide.network, self._sight.to_ring.sum(dim=1)
        rates = (
            self._rates(self._base(targets, rows), self._z[rows], targets)
            for rows in self._blocks()
        )
        even, weighed = mean_gradients(
            network, self.pooled, shown, self._decoder(targets), rates, progress
        )
        around = [network.unmix(name, even) for name in ("near", "far")]
        return {
            "neighbors": sum(around, network.unmix("similar", weighed)),
            "center": network.unmix("center", even),
        }

    def _blocks(self) -> list[slice]:
        starts = range(0, len(self._neighbors), CENTERS)
        return [slice(start, start + CENTERS) for start in starts]

    def _decoder(self, genes: Tensor) -> Tensor:
        """Give the correction of each gene: that of a missing one where the slide lacks it."""
        network, measured = self._slide.network, self._slide.measured[genes]
        return torch.where(measured[:, None], network.decoder[genes], network.missing[genes])

    def _rates(self, base: Tensor, z: Tensor, genes: Tensor) -> Tensor:
        return self._slide.network.correct(base, z, self._decoder(genes))

    def _kept_base(self, genes: Tensor) -> Tensor:
        """Compute the base of some genes once."""
        key = genes.cpu().numpy().tobytes()
        if key not in self._kept:
            self._kept[key] = torch.cat([self._base(genes, rows) for rows in self._blocks()])
        return self._kept[key]

    def _base(self, genes: Tensor, rows: slice) -> Tensor:
        """Expect counts of `genes` by similar spots and the slide: centers × genes."""
        slide, measured = self._slide, self._slide.measured[genes]
        known = genes[measured]
        profiles = self._profiles(known, rows)
        base = slide.network.base(self._sight.level[rows], *profiles)
        if len(known) < len(genes):
            usual = slide.network.usual_share(slide.measured)[genes].repeat(len(base), 1)
            base = usual.index_copy_(1, measured.nonzero().squeeze(1), base)
        return self._scale(rows, known, profiles)[:, None] * base

    def _scale(self, rows: slice, genes: Tensor, profiles: Profiles) -> Tensor:
        """Give visible counts per share of the base that is visible: (centers).

        `profiles` are those of `genes`: where these are what is hidden, nothing is read again.
        """
        if self._hidden is None:
            return self._sight.depth[rows]
        if rows.start not in self._scales:
            unseen = torch.from_numpy(self._hidden.genes).to(genes.device)
            if not torch.equal(unseen, genes):
                profiles = self._profiles(unseen, rows)
            level = torch.sigmoid(self._sight.level[rows, None])
            share = torch.lerp(profiles[0], profiles[1], level)
            if self._hidden.mask is not None:
                share = share * torch.from_numpy(self._hidden.mask[rows]).to(share.device)
            visible = (1 - share.sum(dim=1)).clamp(min=1e-6)
            self._scales[rows.start] = self._sight.depth[rows] / visible
        return self._scales[rows.start]

    def _profiles(self, genes: Tensor, rows: slice) -> Profiles:
        """Read what similar spots and the rest of the slide show of `genes`: centers × genes.

        Returns
        -------
        Profiles of the similar spots and of the slide, and mean counts over the slide.
        """
        slide, neighbors = self._slide, self._neighbors[rows]
        counts = columns_of(slide.counts, genes.cpu().numpy())
        marks = slide.dense(counts[slide.landmarks.cpu().numpy()])
        to_landmarks, to_ring = self._sight.to_landmarks[rows], self._sight.to_ring[rows]
        similar = to_landmarks @ marks + slide.dense(_weighed(counts, neighbors[:, 1:], to_ring))
        ring = torch.from_numpy(neighbors[:, 1:]).to(slide.device)
        depth = to_landmarks @ slide.depths[slide.landmarks]
        depth = depth + (to_ring * slide.depths[ring]).sum(dim=1)
        around = self._hidden is not None and self._hidden.around
        left_out = neighbors if around else neighbors[:, :1]
        others = (slide.total[genes] - slide.dense(sum_over(counts, left_out))).clamp(min=0)
        own = slide.depths[torch.from_numpy(left_out).to(slide.device)].sum(dim=1)
        rest = (slide.depths.sum() - own).clamp(min=1)
        n_others = max(1, len(slide.depths) - left_out.shape[1])
        return similar / depth.clamp(min=1e-6)[:, None], others / rest[:, None], others / n_others


def _weighed(counts: csr_matrix, rows: Positions, weights: Tensor) -> csr_matrix:
    """Add up rows of counts with weights: centers × genes."""
    ends = np.arange(0, rows.size + 1, rows.shape[1])
    parts = (weights.cpu().numpy().ravel(), rows.ravel(), ends)
    return csr_matrix(csr_matrix(parts, shape=(len(rows), counts.shape[0])) @ counts)
