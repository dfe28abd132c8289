"""Predict centers whose neighborhoods change, with all that follows from changed counts.

Counts that change in a spot change its library size, the background expected of that, its residual
and its key. So all operators, the attention, the base and the estimated library size of the center
change. A residual moves within a few directions, the embeddings of the changed genes and the rows
of the table of the background, so that nothing is computed spot by spot but the numbers that say
how far:

    R' = R + Δ log1p counts W - Δ weights (e W)

Only the neighborhood changes: the background, as the rest of the slide, stays as it is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import NeighborhoodChange
from sagefm.nn.context.network import NEAR, Attention, Context, Spots, Visible

if TYPE_CHECKING:
    from sagefm.nn.context.encoded import ContextSlide
    from sagefm.nn.context.whole import SlideBackground

_SHORTEST = 1e-12
"""Lower bound of lengths."""
_CENTERS = 512
"""Centers whose attention is in memory together."""
_ENTRIES = 2**26
"""Counts of targets that are in memory together, spots × targets."""


class Seen(NamedTuple):
    """Some centers that are compared with one background."""

    rows: Positions
    """Which of all centers."""
    expected: "SlideBackground"
    spots: Spots
    neighbors: Tensor
    """Centers × 15 rows of `spots`, the center first."""
    visible: Visible


class _Before(NamedTuple):
    """The same centers, with what they show before a change."""

    seen: Seen
    rows: Tensor
    keys: Tensor
    """Spots × keys, of any length."""
    landmarks: tuple[Tensor, Tensor, Tensor]
    """Keys, residuals and library sizes of the landmarks."""
    fraction: Tensor
    """Fraction of the counts of a center that is not masked, as is expected."""
    sizes: Tensor
    """Centers × 15: library sizes, those of centers scaled up for what is masked."""
    weights: Tensor
    """Centers × 15 × rows of the table of the background."""
    expected: tuple[Tensor, Tensor]
    """That table, times the first-layer weights: for centers without the masked genes, and whole.
    """
    facts: Tensor
    similar: Tensor
    """Centers × width: mean residual of the similar spots."""

    @classmethod
    def of(cls, network: Context, seen: Seen, attention: Attention, masked: Positions) -> Self:
        """Keep of some centers, whose attention is given, what every change needs."""
        rows, spots, neighbors = torch.from_numpy(seen.rows).to(network.device), *seen[2:4]
        background, projected = seen.expected
        genes = torch.from_numpy(masked).to(network.device)
        shown = projected - background.expected[:, genes] @ network.first[genes]
        sizes = torch.cat(
            [seen.visible.library_sizes[0][:, None], spots.library_size[neighbors[:, 1:]]], dim=1
        )
        landmarks = tuple(
            values[spots.landmarks]
            for values in (spots.keys, spots.residuals, spots.library_size[:, None])
        )
        similar = _average(
            attention.to_landmarks[rows], landmarks[1], attention.to_neighbors[rows],
            spots.residuals, neighbors,
        )  # fmt: skip
        return cls(
            seen=seen,
            rows=rows,
            keys=network.key(spots.residuals),
            landmarks=(landmarks[0], landmarks[1], landmarks[2]),
            fraction=(1 - background.profile[genes].sum()).clamp(min=1e-6),
            sizes=sizes,
            weights=background.weights(sizes),
            expected=(shown, projected),
            facts=network.facts_of(spots, seen.visible, neighbors.shape[1]),
            similar=similar,
        )


class _After(NamedTuple):
    """Some of these centers after a change."""

    before: _Before
    at: Tensor
    """Which of the centers of `before`."""
    neighbors: Tensor
    genes: Tensor
    counts: Tensor
    """Centers × 15 × genes: change of the counts."""
    sizes: Tensor
    """Centers × 15."""
    amounts: Tensor
    """Centers × 15 × directions: how far residuals move in each."""

    @classmethod
    def of(cls, before: _Before, at: Tensor, genes: Tensor, log1p: Tensor, counts: Tensor) -> Self:
        """Change the neighborhoods of some centers, each in its own way."""
        added = counts.sum(dim=2)
        added[:, 0] /= before.fraction
        sizes = before.sizes[at] + added
        moved = before.seen.expected.background.weights(sizes) - before.weights[at]
        amounts = torch.cat([log1p, -moved], dim=2)
        return cls(before, at, before.seen.neighbors[at], genes, counts, sizes, amounts)

    def directions(self, network: Context) -> tuple[Tensor, Tensor]:
        """Stack the directions in which residuals of centers, and of other spots, move."""
        first = network.first[self.genes]
        center, others = (torch.cat([first, table]) for table in self.before.expected)
        return center, others


class _Targets(NamedTuple):
    """Genes to predict, and counts of them and of all masked genes: these are the last column."""

    genes: Tensor
    decoder: Tensor
    known: Tensor
    """Those that the slide has."""
    counts: Tensor
    """Spots × columns."""
    of_landmarks: Tensor
    """Landmarks × columns."""
    total: Tensor
    """(columns) over the slide."""


class Recomputed:
    """Centers, with what does not depend on the change.

    Parameters
    ----------
    masked
        Positions of the genes that are masked in all centers.
    seen
        All centers, by their background; all have the same spots.
    attention
        Of all centers.
    spots
        Rows of the slide: the spots of `seen`.
    sharpen
        As in :meth:`Context.attend`.
    """

    def __init__(
        self,
        slide: "ContextSlide",
        masked: Positions,
        seen: Sequence[Seen],
        attention: Attention,
        spots: Positions,
        sharpen: float,
    ) -> None:
        self._slide, self._network, self._pooled = slide, slide.network, attention.pooled
        self._before = [_Before.of(slide.network, one, attention, masked) for one in seen]
        self._masked, self._spots = torch.from_numpy(masked).to(slide.device), spots
        counts = slide.counts[spots][:, masked].sum(axis=1, dtype=np.float32)
        self._masked_counts = torch.from_numpy(np.asarray(counts)).to(slide.device)
        self._sharpen, self._last = sharpen, cast("_Targets | None", None)

    def predict(self, change: NeighborhoodChange, genes: Tensor, unchanged: Tensor) -> Tensor:
        """Predict versions × centers × genes, log1p counts.

        Parameters
        ----------
        unchanged
            Centers × genes: predictions of centers whose neighborhood does not change.
        """
        most = max(1, _ENTRIES // len(self._spots))
        blocks = zip(torch.split(genes, most), torch.split(unchanged, most, dim=1), strict=True)
        return torch.cat([self._predict(change, *block) for block in blocks], dim=2)

    def _predict(self, change: NeighborhoodChange, genes: Tensor, unchanged: Tensor) -> Tensor:
        predicted, targets = unchanged.repeat(len(change.log1p), 1, 1), self._targets(genes)
        is_changed = (change.log1p != 0).any(dim=3).any(dim=2)
        for before in self._before:
            versions, centers = is_changed[:, before.rows].nonzero(as_tuple=True)
            for start in range(0, len(centers), _CENTERS):
                version, at = (part[start : start + _CENTERS] for part in (versions, centers))
                rows = version, before.rows[at]
                after = _After.of(before, at, change.genes, *(part[rows] for part in change[1:]))
                attention = self._attend(after)
                correction = self._network.z(attention.pooled) @ targets.decoder.T
                expected = self._expected(after, attention, targets)
                predicted[rows] = self._network.predict(expected, correction)
        return predicted

    def _attend(self, after: _After) -> Attention:
        network, before, seen = self._network, after.before, after.before.seen
        [keys, residuals, sizes], amounts = before.landmarks, after.amounts
        of_center, of_others = after.directions(network)
        rings = amounts[:, 0], amounts[:, 1 : 1 + NEAR].mean(1), amounts[:, 1 + NEAR :].mean(1)
        visible = self._visible(after, [rings[0] @ of_center, *(r @ of_others for r in rings[1:])])
        facts = network.facts_of(seen.spots, visible, amounts.shape[1])
        query = network.ask(visible, facts, amounts.shape[1], self._sharpen)
        to_landmarks, to_neighbors = network.weigh(
            query @ keys.T,
            self._cosines(after, query, network.key(of_others)),
            seen.spots.place[after.neighbors],
        )
        similar = _average(
            to_landmarks, residuals, to_neighbors, seen.spots.residuals, after.neighbors
        )
        moves = torch.einsum("cr,crm->cm", to_neighbors, amounts[:, 1:])
        pooled = self._pooled[before.rows[after.at]] + network.mix(
            "similar", similar - before.similar[after.at]
        )
        pooled += (facts - before.facts[after.at]) @ network.facts.weight.T
        directions = zip(Context.OPERATORS, (of_center, *[of_others] * 3), strict=False)
        mixed = torch.cat([network.mix(name, values) for name, values in directions])
        pooled.addmm_(torch.cat([*rings, moves], dim=1), mixed)
        size = (to_landmarks @ sizes).squeeze(1) + (to_neighbors * after.sizes[:, 1:]).sum(dim=1)
        level = network.level(facts).squeeze(1)
        return Attention(pooled, to_landmarks, to_neighbors, size, level, visible.library_size)

    @staticmethod
    def _cosines(after: _After, query: Tensor, directions: Tensor) -> Tensor:
        """Multiply queries with the keys of neighbors, which move too: centers × neighbors."""
        around, keys = after.neighbors[:, 1:], after.before.keys
        moved = after.amounts[:, 1:].reshape(-1, len(directions))
        own = torch.addmm(keys[around.reshape(-1)], moved, directions).view(*around.shape, -1)
        lengths: Tensor = torch.linalg.vector_norm(own, dim=2).clamp(min=_SHORTEST)
        products: Tensor = torch.einsum("ck,crk->cr", query, own)
        return products / lengths

    def _visible(self, after: _After, moved: Sequence[Tensor]) -> Visible:
        """Move the mean residuals of the center and of both rings."""
        before, at, sizes = after.before.seen.visible, after.at, after.sizes
        center, near, far = (a[at] + b for a, b in zip(before.residuals, moved, strict=True))
        rings = sizes[:, 0], sizes[:, 1 : 1 + NEAR].mean(1), sizes[:, 1 + NEAR :].mean(1)
        library_size = before.library_size[at] + after.counts[:, 0].sum(dim=1)
        return Visible((center, near, far), rings, library_size)

    def _expected(self, after: _After, attention: Attention, targets: _Targets) -> Tensor:
        """Compute expected counts from similar spots and the slide: centers × genes."""
        slide, added, weights = self._slide, after.counts[:, 1:], attention.to_neighbors
        column, gene = self._columns_of(after.genes, targets.known)
        own, counts = after.neighbors[:, 0], targets.counts
        similar = _average(
            attention.to_landmarks, targets.of_landmarks, weights, counts, after.neighbors
        )
        similar.index_add_(1, column, torch.einsum("cr,crg->cg", weights, added)[:, gene])
        similar = similar / attention.similar_size.clamp(min=1e-6)[:, None]
        others = (
            (targets.total - counts[own])
            .index_add_(1, column, added.sum(dim=1)[:, gene])
            .clamp(min=0)
        )
        size = slide.whole.size - after.before.seen.spots.library_size[own] + added.sum(dim=(1, 2))
        profile = others / size.clamp(min=1).float()[:, None]
        mean = others[:, :-1] / max(1, len(slide.whole) - 1)
        base = slide.base(attention.level, targets.genes, (similar[:, :-1], profile[:, :-1], mean))
        masked = similar[:, -1], profile[:, -1]
        scale = self._network.scale(attention.library_size, attention.level, *masked)
        return scale[:, None] * base

    def _columns_of(self, changed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Find the columns of counts in which changed genes count, and which genes these are."""
        last = torch.isin(changed, self._masked)[None]
        found = torch.cat([known[:, None] == changed, last]).nonzero(as_tuple=True)
        return found[0], found[1]

    def _targets(self, genes: Tensor) -> _Targets:
        if self._last is None or not torch.equal(self._last.genes, genes):
            slide = self._slide
            known = genes[slide.measured[genes]]
            columns = slide.columns(known)[self._spots].toarray()
            counts = torch.cat([torch.from_numpy(columns).to(genes.device), self._masked_counts], 1)
            total = torch.cat([slide.total[known], slide.total[self._masked].sum(0, keepdim=True)])
            landmarks = torch.from_numpy(np.searchsorted(self._spots, slide.landmarks))
            self._last = _Targets(
                genes,
                slide.decoder(genes),
                known,
                counts,
                counts[landmarks.to(genes.device)],
                total,
            )
        return self._last


def _average(
    to_landmarks: Tensor, landmarks: Tensor, to_neighbors: Tensor, values: Tensor, neighbors: Tensor
) -> Tensor:
    """Average values of landmarks, and of neighbors among all spots, by attention."""
    of_neighbors = F.embedding_bag(
        neighbors[:, 1:].contiguous(), values, mode="sum",
        per_sample_weights=to_neighbors.contiguous(),
    )  # fmt: skip
    return torch.addmm(of_neighbors, to_landmarks, landmarks)
