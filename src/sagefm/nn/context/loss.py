"""The training objective: predict the masked genes of some centers of a tile.

The network sees nothing of the slide but the tile, whose spots are all landmarks. The background is
that of the spots that are no centers, so that nothing of what a center masks reaches its
prediction. The work goes by the blocks of genes of the masks: centers that mask a block share one
product.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sagefm.nn.context.background import Background
from sagefm.nn.context.network import Attention, Context, Spots, Visible
from sagefm.nn.masking import Masks
from sagefm.nn.sparse import SparseRows


def tile_error(
    network: Context,
    log1p: SparseRows,
    counts: SparseRows,
    neighbors: Tensor,
    measured: Tensor,
    masks: Masks,
    missing: Tensor,
    weights: tuple[float, float],
    others: Tensor,
) -> Tensor:
    """Add up the squared errors of masked genes, on log1p counts.

    Parameters
    ----------
    log1p, counts
        Spots × genes: all spots of the tile, nothing masked.
    neighbors
        Centers × 15 rows, the center first.
    measured
        Genes: whether the slide measured them; others are not scored.
    masks
        What is masked in each center.
    missing
        (blocks of the masks) boolean: missing from all spots, and predicted in all centers as if
        the slide had not measured them.
    weights
        Of a squared error of a masked entry, and of a missing one.
    others
        (spots) boolean: those that the background is of.
    """
    tile = _Tile.of(network, log1p, counts, measured, masks, missing, others)
    visible = _visible(network, tile, neighbors, masks)
    attention = network.attend(tile.spots, neighbors, visible)
    total = log1p.values.new_zeros(())
    for predicted, truth, scored, gone in _predictions(
        network, tile, attention, neighbors, masks, missing
    ):
        error = torch.where(scored, predicted - truth.log1p(), 0.0)
        total = total + weights[gone] * error.square().sum()
    return total


class _Tile(NamedTuple):
    """A tile without its missing genes."""

    spots: Spots
    visible: SparseRows
    """Spots × genes: log1p counts."""
    projected: Tensor
    """Spots × width."""
    blocks: tuple[Tensor, ...]
    """For each block spots × its genes: counts, also of missing genes."""
    sums: Tensor
    """Spots × blocks: the counts of each block; 0 where it is missing."""
    of_block: Tensor
    """(blocks) the counts of the spots that the background is of."""
    scored: tuple[Tensor, ...]
    """For each block which of its genes are measured."""
    expected: Tensor
    """Sizes × blocks × width: the background times the first-layer weights, block by block."""

    @classmethod
    def of(
        cls,
        network: Context,
        log1p: SparseRows,
        counts: SparseRows,
        measured: Tensor,
        masks: Masks,
        missing: Tensor,
        others: Tensor,
    ) -> "_Tile":
        """Remove what is missing, and sum up the rest."""
        sizes = torch.diff(masks.ends).tolist()
        gone = missing[masks.block_of()]
        visible = log1p.keep(~gone[log1p.genes.long()]) if missing.any() else log1p
        dense = counts.dense(len(gone))
        total = torch.where(gone, 0.0, others.to(dense) @ dense)
        blocks = torch.split(dense.index_select(1, masks.order), sizes, dim=1)
        sums = torch.stack([block.sum(dim=1) for block in blocks], dim=1) * ~missing
        library_size = sums.sum(dim=1)
        background = Background.of(total, library_size[others])
        of_blocks = torch.split(background.expected.index_select(1, masks.order), sizes, dim=1)
        first = torch.split(_permuted(network.first, masks.order), sizes)
        products = [e @ w for e, w in zip(of_blocks, first, strict=True)]
        expected = torch.stack(products, dim=1)
        projected = network.project(visible)
        residuals = projected - background.weights(library_size) @ expected.sum(dim=1)
        every = torch.arange(len(library_size), device=library_size.device)
        spots = Spots(
            background, library_size, residuals, network.keys(residuals), every, every,
            measured & ~gone,
        )  # fmt: skip
        scored = torch.split(measured[masks.order], sizes)
        of_block = sums[others].sum(dim=0)
        return cls(spots, visible, projected, blocks, sums, of_block, scored, expected)


def _visible(network: Context, tile: _Tile, neighbors: Tensor, masks: Masks) -> Visible:
    """Subtract what is masked from the centers."""
    whole = network.visible(tile.spots, neighbors)
    centers, of_block = neighbors[:, 0], tile.of_block
    visible = (~masks.masked).float()
    library_size = (tile.sums[centers] * visible).sum(dim=1)
    fraction = ((visible @ of_block) / of_block.sum().clamp(min=1)).clamp(min=1e-6)
    rows = tile.visible.take(centers)
    masked = rows.keep(masks.masked[rows.rows(), masks.block_of()[rows.genes.long()]])
    at = tile.spots.background.weights(library_size / fraction)
    # A block without counts is as good as missing: its background is 0.
    visible = visible * (of_block > 0)
    expected = (at[:, :, None] * visible[:, None]).flatten(1) @ tile.expected.flatten(0, 1)
    center = tile.projected[centers] - network.project(masked) - expected
    _, near, far = whole.residuals
    _, near_size, far_size = whole.library_sizes
    sizes = (library_size / fraction, near_size, far_size)
    return Visible((center, near, far), sizes, library_size)


def _predictions(
    network: Context,
    tile: _Tile,
    attention: Attention,
    neighbors: Tensor,
    masks: Masks,
    missing: Tensor,
) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
    """Predict each block where it is masked: log1p counts, true counts, what to score, missing."""
    centers, sizes = neighbors[:, 0], torch.diff(masks.ends).tolist()
    to_spots = attention.to_landmarks.scatter_add(1, neighbors[:, 1:], attention.to_neighbors)
    similar_size = attention.similar_size.clamp(min=1e-6)
    others_of_block = tile.sums.sum(dim=0) - tile.sums[centers]
    others_size = others_of_block.sum(dim=1).clamp(min=1)
    n_others = max(1, len(tile.sums) - 1)
    scale = network.scale(
        attention.library_size,
        attention.level,
        ((to_spots @ tile.sums) * masks.masked).sum(dim=1) / similar_size,
        (others_of_block * masks.masked).sum(dim=1) / others_size,
    )
    z = network.z(attention.pooled)
    decoders = torch.split(_permuted(network.decoder, masks.order), sizes)
    decoders_missing = torch.split(_permuted(network.missing, masks.order), sizes)
    usual = torch.split(network.usual_profile(tile.spots.measured)[masks.order], sizes)
    for number, gone in enumerate(missing.tolist()):
        block, scored = tile.blocks[number], tile.scored[number]
        if gone:
            expected = scale[:, None] * usual[number]
            correction = z @ decoders_missing[number].T
            yield network.predict(expected, correction), block[centers], scored, True
            continue
        rows = masks.masked[:, number].nonzero().squeeze(1)
        truth = block.index_select(0, centers[rows])
        others = block.sum(dim=0) - truth
        similar = to_spots.index_select(0, rows) @ block / similar_size[rows, None]
        slide = others / others_size[rows, None]
        base = network.base(attention.level[rows], similar, slide, others / n_others)
        correction = z[rows] @ decoders[number].T
        yield network.predict(scale[rows, None] * base, correction), truth, scored, False


class _Permuted(torch.autograd.Function):
    """Rows in another order; their gradient is put back by a gather, not by adding up."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return weights.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.index_select(0, ctx.saved_tensors[0].argsort()), None


def _permuted(weights: Tensor, order: Tensor) -> Tensor:
    permuted: Tensor = _Permuted.apply(weights, order)  # type: ignore[no-untyped-call]
    return permuted
