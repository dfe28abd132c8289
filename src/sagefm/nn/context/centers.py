"""Some centers of a slide: what is visible of them, what they attend to, what is predicted."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions, Where
from sagefm.nn.base import Centers, MaskedGenes
from sagefm.nn.context.network import Attention, Context, Visible, split_rings
from sagefm.nn.sparse import columns_of, sum_over

if TYPE_CHECKING:
    from sagefm.nn.context.encoded import ContextSlide

CENTERS = 512
"""Centers whose rows of genes are in memory together."""
_JACOBIANS = 64
"""Centers whose Jacobians are in memory together."""
Profiles = tuple[Tensor, Tensor, Tensor]
OPERATORS = Context.OPERATORS[:-1]
"""Those that average over spots of the neighborhood, in the order of weights and changes."""


class ContextCenters(Centers):
    """Some centers with their masked genes.

    Parameters
    ----------
    neighbors
        Centers × 15 rows of the slide, the center first.
    """

    def __init__(
        self, slide: "ContextSlide", neighbors: Positions, masked: MaskedGenes | None
    ) -> None:
        self._slide, self._network, self._neighbors = slide, slide.network, neighbors
        self._masked = None if masked is None else _masked_counts(masked, slide)
        attended = [self._attend(rows) for rows in self._blocks()]
        self._attention = Attention(*map(torch.cat, zip(*attended, strict=True)))
        self.pooled = self._attention.pooled
        self._expected_of: dict[bytes, Tensor] = {}
        self._scale_of: dict[int, Tensor] = {}

    def _attend(self, rows: slice) -> Attention:
        slide, neighbors = self._slide, self._neighbors[rows]
        at = torch.from_numpy(neighbors).to(slide.device)
        visible = self._network.visible(slide.spots, at)
        if self._masked is not None:
            visible = _visible(slide, split_rings(at), visible, _of(self._masked, rows))
        return self._network.attend(slide.spots, at, visible)

    @cached_property
    def _z(self) -> Tensor:
        return self._network.z(self.pooled)

    def predict(self, genes: Tensor | None = None) -> Tensor:
        """Predict log1p counts: centers × genes."""
        if genes is None:
            genes = torch.arange(len(self._slide.total), device=self._slide.device)
        absent = ~self._slide.measured[genes]
        if self._masked is not None or not absent.any() or self._slide.absent is None:
            return self._predict(genes)
        spots = torch.from_numpy(self._neighbors[:, 0]).to(self._slide.device)
        predicted = genes.new_empty(len(spots), len(genes), dtype=torch.float32)
        if not absent.all():
            predicted[:, ~absent] = self._predict(genes[~absent])
        predicted[:, absent] = self._slide.absent.predict(spots, genes[absent])
        return predicted

    def _predict(self, genes: Tensor) -> Tensor:
        decoder = self._decoder(genes).T
        return torch.cat(
            [
                self._network.predict(self._expected(genes, rows), self._z[rows] @ decoder)
                for rows in self._blocks()
            ]
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Operators (center, near, far, similar) × centers × neighborhood."""
        n_centers, size = self._neighbors.shape
        weights = np.zeros((len(OPERATORS), n_centers, size))
        for of_ring, [ring] in zip(weights, split_rings(torch.arange(size)[None]), strict=False):
            of_ring[:, ring.numpy()] = 1 / len(ring)
        weights[-1, :, 1:] = self._attention.to_neighbors.cpu().numpy()
        return weights

    def unchanged(self, targets: Tensor) -> Tensor:
        """Predict without a change."""
        return self._network.predict(
            self._cached_expected(targets), self._z @ self._decoder(targets).T
        )

    def changed(self, genes: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Predict after a change, with attention, library sizes and base as they are."""
        network, z = self._network, self._z.clone()
        rows = (change != 0).any(dim=2).any(dim=0).nonzero().squeeze(1)
        weights, pooled = network.first[genes], self.pooled[rows]
        for name, amount in zip(OPERATORS, change, strict=True):
            pooled = pooled + amount[rows] @ network.mix(name, weights)
        z[rows] = network.z(pooled)
        return network.predict(self._cached_expected(targets), z @ self._decoder(targets).T)

    def influence(
        self, targets: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[Where, Tensor]:
        """Average over the centers how predictions depend on the projected spots."""
        network, attended = self._network, self._attention.to_neighbors.sum(dim=1)
        with torch.inference_mode(False), torch.enable_grad():
            mean, by_attention = self._mean_gradients(targets, attended.clone(), progress)

        def of_operator(name: str, gradient: Tensor) -> Tensor:
            return gradient @ network.mix(name, torch.eye(network.widths[0]).to(gradient)).T

        ring = of_operator("near", mean) + of_operator("far", mean)
        return {
            "neighbors": ring + of_operator("similar", by_attention),
            "center": of_operator("center", mean),
        }

    def _mean_gradients(
        self, targets: Tensor, weights: Tensor, progress: Callable[[int], None] | None
    ) -> tuple[Tensor, Tensor]:
        """Average the derivatives of predictions by P, and the same times `weights`.

        The derivative of prediction k is its slope in ``D z`` times row k of D times the Jacobian
        of z, which all genes share.

        Returns
        -------
        Targets × hidden width, twice.
        """
        network, decoder = self._network, self._decoder(targets).detach()
        jacobian = torch.func.vmap(torch.func.jacrev(network.z))
        total = weights.new_zeros(2, len(targets), self.pooled.shape[1])
        for rows in self._blocks():
            with torch.no_grad():
                expected = self._expected(targets, rows)
            for start in range(rows.start, rows.stop, _JACOBIANS):
                some = slice(start, min(start + _JACOBIANS, rows.stop))
                pooled = self.pooled[some].clone()
                correction = (network.z(pooled) @ decoder.T).detach().requires_grad_()
                base = expected[some.start - rows.start : some.stop - rows.start].clone()
                predicted = network.predict(base, correction)
                [slope] = torch.autograd.grad(predicted.sum(), correction)
                with torch.no_grad():
                    for one, own, weight in zip(
                        slope, jacobian(pooled), weights[some], strict=True
                    ):
                        gradient = (one[:, None] * decoder) @ own
                        total[0] += gradient
                        total[1].add_(gradient, alpha=float(weight))
                if progress is not None:
                    progress(some.stop)
        return total[0] / len(self.pooled), total[1] / len(self.pooled)

    def _blocks(self) -> list[slice]:
        n_centers = len(self._neighbors)
        starts = range(0, n_centers, CENTERS)
        return [slice(start, min(start + CENTERS, n_centers)) for start in starts]

    def _decoder(self, genes: Tensor) -> Tensor:
        """Pick D of each gene, the one for missing genes where the slide lacks it."""
        network, measured = self._network, self._slide.measured[genes]
        return torch.where(measured[:, None], network.decoder[genes], network.missing[genes])

    def _cached_expected(self, genes: Tensor) -> Tensor:
        key = genes.cpu().numpy().tobytes()
        if key not in self._expected_of:
            expected = [self._expected(genes, rows) for rows in self._blocks()]
            self._expected_of[key] = torch.cat(expected)
        return self._expected_of[key]

    def _expected(self, genes: Tensor, rows: slice) -> Tensor:
        """Compute expected counts from similar spots and the slide: centers × genes."""
        network, measured = self._network, self._slide.measured[genes]
        known = genes[measured]
        profiles = self._profiles(known, rows)
        base = network.base(self._attention.level[rows], *profiles)
        if len(known) < len(genes):
            usual = network.usual_profile(self._slide.measured)[genes].repeat(len(base), 1)
            base = usual.index_copy_(1, measured.nonzero().squeeze(1), base)
        return self._scale(rows, known, profiles)[:, None] * base

    def _scale(self, rows: slice, genes: Tensor, profiles: Profiles) -> Tensor:
        """Estimate the library size of each center: (centers).

        `profiles` are those of `genes`: where these are the masked ones, they are not computed
        again.
        """
        size, level = self._attention.library_size[rows], self._attention.level[rows]
        if self._masked is None:
            return size
        if rows.start not in self._scale_of:
            masked = _of(self._masked, rows)
            at = torch.from_numpy(masked.genes).to(genes.device)
            if not torch.equal(at, genes):
                profiles = self._profiles(at, rows)
            mask = 1.0 if masked.mask is None else torch.from_numpy(masked.mask).to(genes.device)
            similar, slide = ((profile * mask).sum(dim=1) for profile in profiles[:2])
            self._scale_of[rows.start] = self._network.scale(size, level, similar, slide)
        return self._scale_of[rows.start]

    def _profiles(self, genes: Tensor, rows: slice) -> Profiles:
        """Compute profiles of the similar spots and of the rest of the slide: centers × genes.

        Returns
        -------
        Both profiles, and mean counts over the rest of the slide.
        """
        slide, neighbors, attention = self._slide, self._neighbors[rows], self._attention
        counts = columns_of(slide.counts, genes.cpu().numpy())
        landmarks = _dense(counts[slide.spots.landmarks.cpu().numpy()], slide)
        of_neighbors = _weighted(counts, neighbors[:, 1:], attention.to_neighbors[rows])
        similar = attention.to_landmarks[rows] @ landmarks + _dense(of_neighbors, slide)
        similar_size = attention.similar_size[rows].clamp(min=1e-6)
        neighbors_masked = self._masked is not None and self._masked.neighbors
        left_out = neighbors if neighbors_masked else neighbors[:, :1]
        others = (slide.total[genes] - _dense(sum_over(counts, left_out), slide)).clamp(min=0)
        own_size = slide.library_size[torch.from_numpy(left_out).to(slide.device)].sum(dim=1)
        others_size = (slide.library_size.sum() - own_size).clamp(min=1)
        n_others = max(1, len(slide.library_size) - left_out.shape[1])
        return similar / similar_size[:, None], others / others_size[:, None], others / n_others


def _masked_counts(masked: MaskedGenes, slide: "ContextSlide") -> MaskedGenes:
    """Leave out genes that the slide lacks, and genes that no center masks."""
    kept = slide.measured.cpu().numpy()[masked.genes]
    if masked.mask is None:
        return masked._replace(genes=masked.genes[kept])
    kept &= masked.mask.any(axis=0)
    return masked._replace(genes=masked.genes[kept], mask=masked.mask[:, kept])


def _of(masked: MaskedGenes, rows: slice) -> MaskedGenes:
    """Keep the masks of some centers."""
    return masked if masked.mask is None else masked._replace(mask=masked.mask[rows])


def _visible(
    slide: "ContextSlide", rings: tuple[Tensor, ...], whole: Visible, masked: MaskedGenes
) -> Visible:
    """Subtract what is masked from the center, or from the whole neighborhood."""
    background = slide.background
    genes = torch.from_numpy(masked.genes).to(slide.device)
    counts, log1p = (columns_of(m, masked.genes) for m in (slide.counts, slide.slide.log1p))
    mask = torch.ones(len(rings[0]), 1, device=slide.device)
    if masked.mask is not None:
        mask = torch.from_numpy(masked.mask).to(slide.device).float()
    visible_fraction = (1 - (mask * background.profile[genes]).sum(dim=1)).clamp(min=1e-6)

    def mean(values: csr_matrix, ring: Tensor) -> Tensor:
        total = _dense(sum_over(values, ring.cpu().numpy()), slide)
        return mask * total / ring.shape[1]

    residuals, sizes = list(whole.residuals), list(whole.library_sizes)
    for i, ring in enumerate(rings if masked.neighbors else rings[:1]):
        left = sizes[i] - mean(counts, ring).sum(dim=1)
        scaled_up = left.clamp(min=0) / visible_fraction
        factor = scaled_up / sizes[i].clamp(min=1e-6)
        weights = background.weights(slide.library_size[ring] * factor[:, None]).mean(dim=1)
        expected = mask * (weights @ background.expected[:, genes])
        removed = (mean(log1p, ring) - expected) @ slide.network.first[genes]
        residuals[i] = slide.projected[ring].mean(dim=1) - weights @ slide.expected - removed
        sizes[i] = scaled_up
    center, near, far = residuals
    return Visible(
        (center, near, far), (sizes[0], sizes[1], sizes[2]), sizes[0] * visible_fraction,
        masked.neighbors,
    )  # fmt: skip


def _dense(rows: csr_matrix, slide: "ContextSlide") -> Tensor:
    return torch.from_numpy(rows.toarray().astype(np.float32, copy=False)).to(slide.device)


def _weighted(counts: csr_matrix, rows: Positions, weights: Tensor) -> csr_matrix:
    """Add up rows of counts with weights: centers × genes."""
    ends = np.arange(0, rows.size + 1, rows.shape[1])
    parts = (weights.cpu().numpy().ravel(), rows.ravel(), ends)
    return csr_matrix(csr_matrix(parts, shape=(len(rows), counts.shape[0])) @ counts)
