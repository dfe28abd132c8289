"""Some centers of a slide: what is visible of them, what they attend to, what is predicted."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions, Where
from sagefm.nn.base import Centers, MaskedGenes, NeighborhoodChange
from sagefm.nn.context.background import log1p_mean
from sagefm.nn.context.masked import masked_counts, of_centers, visible_of
from sagefm.nn.context.network import Attention, Context, split_rings
from sagefm.nn.context.recomputed import Recomputed, Seen
from sagefm.nn.sparse import sum_over

if TYPE_CHECKING:
    from sagefm.nn.context.encoded import ContextSlide
    from sagefm.nn.context.whole import SlideBackground

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
    sharpen
        As in :meth:`Context.attend`.
    """

    def __init__(
        self,
        slide: "ContextSlide",
        neighbors: Positions,
        masked: MaskedGenes | None,
        sharpen: float = 1.0,
    ) -> None:
        self._slide, self._network, self._neighbors = slide, slide.network, neighbors
        self._masked = None if masked is None else masked_counts(masked, slide)
        self._sharpen = sharpen
        self._attention = self._attend()
        self.pooled = self._attention.pooled
        self._expected_of: dict[bytes, Tensor] = {}
        self._scale_of: dict[tuple[int, int], Tensor] = {}

    def _attend(self) -> Attention:
        """Attend from all centers: those of a fold together, a block at a time."""
        attended, order = [], []
        for expected, centers in self._by_background():
            for start in range(0, len(centers), CENTERS):
                rows = centers[start : start + CENTERS]
                attended.append(self._attend_from(rows, expected))
                order.append(rows)
        if not attended:
            return self._attend_from(np.arange(0), self._slide.expected)
        whole = map(torch.cat, zip(*attended, strict=True))
        inverse = torch.from_numpy(np.argsort(np.concatenate(order))).to(self._slide.device)
        return Attention(*(part[inverse] for part in whole))

    def _by_background(self) -> Iterator[tuple["SlideBackground", Positions]]:
        """Divide the centers by the background they are compared with."""
        if self._masked is None:
            yield self._slide.expected, np.arange(len(self._neighbors))
            return
        around = self._masked.neighbors
        folds = self._slide.folds(self._neighbors[:, 0], neighbors_masked=around)
        for fold in np.unique(folds).tolist():
            expected = self._slide.expected_of(fold, neighbors_masked=around)
            yield expected, np.flatnonzero(folds == fold)

    def _attend_from(self, rows: Positions, expected: "SlideBackground") -> Attention:
        seen = self._see(rows, expected, self._neighbors[rows])
        return self._network.attend(seen.spots, seen.neighbors, seen.visible, self._sharpen)

    def _see(self, rows: Positions, expected: "SlideBackground", members: Positions) -> Seen:
        """Compare some centers, the landmarks and the members with their background."""
        slide, neighbors = self._slide, self._neighbors[rows]
        members = np.union1d(slide.landmarks, members)
        spots = slide.spots(members, expected)
        at = torch.from_numpy(np.searchsorted(members, neighbors)).to(slide.device)
        visible = self._network.visible(spots, at)
        if self._masked is not None:
            masked = of_centers(self._masked, rows)
            visible = visible_of(slide, expected, neighbors, visible, masked)
        return Seen(rows, expected, spots, at, visible)

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
        stack, around = self._slide.stack, self._masked is not None and self._masked.neighbors
        if stack is not None and not around and bool(self._slide.measured[genes].all()):
            return stack.predict(self, genes)
        return torch.cat([self.predict_block(genes, rows) for rows in self.blocks()])

    def predict_block(self, genes: Tensor, rows: slice) -> Tensor:
        """Predict log1p counts of some centers: centers × genes."""
        correction = self._z[rows] @ self._slide.decoder(genes).T
        return self._network.predict(self._expected(genes, rows), correction)

    def sharpened(self, factor: float) -> "ContextCenters":
        """Attend from the same centers with another sharpness."""
        return ContextCenters(self._slide, self._neighbors, self._masked, factor)

    def views(self, genes: Tensor, rows: slice) -> Tensor:
        """Predict measured genes in four ways: views × centers × genes, log1p counts.

        With the correction, without it, by the profile of all other spots of the slide, and by
        that of the neighbors and the slide, half of each. No view contains a masked count, nor any
        other of the center.

        Parameters
        ----------
        rows
            Which of the centers.
        """
        wanted = genes.cpu().numpy()
        every = wanted if self._masked is None else np.union1d(wanted, self._masked.genes)
        at = torch.from_numpy(every).to(genes.device)
        size, level = self._attention.library_size[rows], self._attention.level[rows]
        similar, slide, mean = self._profiles(at, rows)
        near, mask = (self._near(at, rows) + slide) / 2, self._mask_of(every, rows)
        hidden = [(profile * mask).sum(dim=1) for profile in (similar, slide, near)]
        if len(every) > len(wanted):
            columns = torch.from_numpy(np.searchsorted(every, wanted)).to(genes.device)
            similar, slide, mean, near = (p[:, columns] for p in (similar, slide, mean, near))
        base = self._network.base(level, similar, slide, mean)
        expected = self._network.scale(size, level, hidden[0], hidden[1])[:, None] * base
        corrected = self._network.predict(expected, self._z[rows] @ self._slide.decoder(genes).T)
        by_profiles = [
            (size / (1 - part).clamp(min=1e-6))[:, None] * profile
            for part, profile in zip(hidden[1:], (slide, near), strict=True)
        ]
        return torch.stack([corrected, *map(log1p_mean, (expected, *by_profiles))])

    def _near(self, genes: Tensor, rows: slice) -> Tensor:
        """Compute the profile of the neighbors: centers × genes."""
        slide, neighbors = self._slide, self._neighbors[rows, 1:]
        size = slide.library_size[torch.from_numpy(neighbors).to(slide.device)].sum(dim=1)
        counts = sum_over(slide.columns(genes), neighbors)
        return _dense(counts, slide) / size.clamp(min=1)[:, None]

    def _mask_of(self, genes: Positions, rows: slice) -> Tensor:
        """Tell which of `genes` are masked in each center: centers × genes."""
        mask = np.zeros((len(self._neighbors[rows]), len(genes)), dtype=bool)
        if self._masked is not None:
            of_rows = of_centers(self._masked, rows).mask
            mask[:, np.searchsorted(genes, self._masked.genes)] = (
                True if of_rows is None else of_rows
            )
        return torch.from_numpy(mask).to(self._slide.device)

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
            self._cached_expected(targets), self._z @ self._slide.decoder(targets).T
        )

    def changed(self, genes: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Predict after a change, with attention, library sizes and base as they are."""
        network, z = self._network, self._z.clone()
        rows = (change != 0).any(dim=2).any(dim=0).nonzero().squeeze(1)
        weights, pooled = network.first[genes], self.pooled[rows]
        for name, amount in zip(OPERATORS, change, strict=True):
            pooled = pooled + amount[rows] @ network.mix(name, weights)
        z[rows] = network.z(pooled)
        return network.predict(self._cached_expected(targets), z @ self._slide.decoder(targets).T)

    def recomputed(self, change: NeighborhoodChange, targets: Tensor) -> Tensor:
        """Predict after a change, with attention, library sizes and base computed anew."""
        return self._recomputed.predict(change, targets, self.unchanged(targets))

    @cached_property
    def _recomputed(self) -> Recomputed:
        masked = self._masked or MaskedGenes(np.arange(0))
        if masked.mask is not None or masked.neighbors:
            raise ValueError("changed counts need genes that are masked in all centers, and there")
        spots = np.union1d(self._slide.landmarks, self._neighbors)
        seen = [self._see(centers, expected, spots) for expected, centers in self._by_background()]
        return Recomputed(self._slide, masked.genes, seen, self._attention, spots, self._sharpen)

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
        network, decoder = self._network, self._slide.decoder(targets).detach()
        jacobian = torch.func.vmap(torch.func.jacrev(network.z))
        total = weights.new_zeros(2, len(targets), self.pooled.shape[1])
        for rows in self.blocks():
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

    def blocks(self, size: int | None = None) -> list[slice]:
        """Divide the centers into blocks that are in memory together."""
        n_centers, size = len(self._neighbors), size or CENTERS
        starts = range(0, n_centers, size)
        return [slice(start, min(start + size, n_centers)) for start in starts]

    def _cached_expected(self, genes: Tensor) -> Tensor:
        key = genes.cpu().numpy().tobytes()
        if key not in self._expected_of:
            expected = [self._expected(genes, rows) for rows in self.blocks()]
            self._expected_of[key] = torch.cat(expected)
        return self._expected_of[key]

    def _expected(self, genes: Tensor, rows: slice) -> Tensor:
        """Compute expected counts from similar spots and the slide: centers × genes."""
        known = genes[self._slide.measured[genes]]
        profiles = self._profiles(known, rows)
        base = self._slide.base(self._attention.level[rows], genes, profiles)
        return self._scale(rows, known, profiles)[:, None] * base

    def _scale(self, rows: slice, genes: Tensor, profiles: Profiles) -> Tensor:
        """Estimate the library size of each center: (centers).

        `profiles` are those of `genes`: where these are the masked ones, they are not computed
        again.
        """
        size, level = self._attention.library_size[rows], self._attention.level[rows]
        if self._masked is None:
            return size
        key = rows.start, rows.stop
        if key not in self._scale_of:
            masked = of_centers(self._masked, rows)
            at = torch.from_numpy(masked.genes).to(genes.device)
            if not torch.equal(at, genes):
                profiles = self._profiles(at, rows)
            mask = 1.0 if masked.mask is None else torch.from_numpy(masked.mask).to(genes.device)
            similar, slide = ((profile * mask).sum(dim=1) for profile in profiles[:2])
            self._scale_of[key] = self._network.scale(size, level, similar, slide)
        return self._scale_of[key]

    def _profiles(self, genes: Tensor, rows: slice) -> Profiles:
        """Compute profiles of the similar spots and of the rest of the slide: centers × genes.

        Returns
        -------
        Both profiles, and mean counts over the rest of the slide.
        """
        slide, neighbors, attention = self._slide, self._neighbors[rows], self._attention
        counts = slide.columns(genes)
        landmarks = _dense(counts[slide.landmarks], slide)
        of_neighbors = _weighted(counts, neighbors[:, 1:], attention.to_neighbors[rows])
        similar = attention.to_landmarks[rows] @ landmarks + _dense(of_neighbors, slide)
        similar_size = attention.similar_size[rows].clamp(min=1e-6)
        neighbors_masked = self._masked is not None and self._masked.neighbors
        left_out = neighbors if neighbors_masked else neighbors[:, :1]
        others = (slide.total[genes] - _dense(sum_over(counts, left_out), slide)).clamp(min=0)
        sizes = slide.library_size.double()
        own_size = sizes[torch.from_numpy(left_out).to(slide.device)].sum(dim=1)
        others_size = (slide.whole.size - own_size).clamp(min=1).float()
        n_others = max(1, len(slide.whole) - left_out.shape[1])
        return similar / similar_size[:, None], others / others_size[:, None], others / n_others


def _dense(rows: csr_matrix, slide: "ContextSlide") -> Tensor:
    return torch.from_numpy(rows.toarray().astype(np.float32, copy=False)).to(slide.device)


def _weighted(counts: csr_matrix, rows: Positions, weights: Tensor) -> csr_matrix:
    """Add up rows of counts with weights: centers × genes."""
    ends = np.arange(0, rows.size + 1, rows.shape[1])
    parts = (weights.cpu().numpy().ravel(), rows.ravel(), ends)
    return csr_matrix(csr_matrix(parts, shape=(len(rows), counts.shape[0])) @ counts)
