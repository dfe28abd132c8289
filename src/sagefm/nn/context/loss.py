"""What the context network learns from: the hidden genes of some centers of a region.

A region is all that the network is shown of a slide. The work goes by blocks of genes, those of the
masks: centers that hide a block share one product.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm.nn.context.background import Background, log1p_mean
from sagefm.nn.context.network import NEAR, Context
from sagefm.nn.masking import Masks
from sagefm.nn.sparse import SparseRows


def region_error(
    network: Context,
    rows: SparseRows,
    neighbors: Tensor,
    measured: Tensor,
    masks: Masks,
    missing: Tensor,
    shares: tuple[float, float],
) -> Tensor:
    """Add up the squared errors of what is hidden, on log1p counts.

    Parameters
    ----------
    rows
        Spots × genes: log1p counts of all spots of the region.
    neighbors
        Centers × 15 row numbers, the center first.
    measured
        Genes: whether the slide has them; others are not scored.
    masks
        What each center hides.
    missing
        (blocks of the masks) boolean: what no spot shows. It is predicted as if the slide lacked
        it, in all centers.
    shares
        What each squared error counts, of a hidden entry and of a missing one.
    """
    region = _Region.of(network, rows, measured, masks, missing)
    seen = _see(network, region, neighbors, masks)
    total = rows.values.new_zeros(())
    for predicted, truth, scored, gone in _predictions(network, region, seen, masks, missing):
        error = torch.where(scored, predicted - truth.log1p(), 0.0)
        total = total + shares[gone] * error.square().sum()
    return total


class _Region(NamedTuple):
    """What is shown of a region."""

    shown: SparseRows
    """Spots × genes: log1p counts without the missing genes."""
    blocks: tuple[Tensor, ...]
    """For each block spots × its genes: counts, also of the missing ones."""
    sums: Tensor
    """Spots × blocks: the counts of each that are shown."""
    measured: Tensor
    """Genes: measured and not missing."""
    scored: tuple[Tensor, ...]
    """For each block which of its genes are measured."""
    table: Background
    expected: Tensor
    """Depths × blocks × width: the table × gene embeddings, block by block."""

    @classmethod
    def of(
        cls, network: Context, rows: SparseRows, measured: Tensor, masks: Masks, missing: Tensor
    ) -> "_Region":
        """Take out what is missing, and sum up the rest."""
        sizes = torch.diff(masks.ends).tolist()
        gone = missing[masks.block_of()]
        shown = rows.keep(~gone[rows.genes.long()]) if missing.any() else rows
        counts = rows.dense(len(gone)).expm1_()
        total = torch.where(gone, 0.0, counts.sum(dim=0))
        blocks = torch.split(counts.index_select(1, masks.order), sizes, dim=1)
        sums = torch.stack([block.sum(dim=1) for block in blocks], dim=1) * ~missing
        table = Background.of(total, sums.sum(dim=1))
        expected = torch.split(table.expected.index_select(1, masks.order), sizes, dim=1)
        weights = torch.split(_permuted(network.first, masks.order), sizes)
        products = [e @ w for e, w in zip(expected, weights, strict=True)]
        scored = torch.split(measured[masks.order], sizes)
        found = torch.stack(products, dim=1)
        return cls(shown, blocks, sums, measured & ~gone, scored, table, found)


class _Seen(NamedTuple):
    """What the network makes of some centers."""

    centers: Tensor
    weights: Tensor
    """Centers × spots: how much each stands for the center."""
    level: Tensor
    scale: Tensor
    """(centers) counts per share of the base."""
    z: Tensor


def _see(network: Context, region: _Region, neighbors: Tensor, masks: Masks) -> _Seen:
    centers, near, far = neighbors[:, 0], neighbors[:, 1 : 1 + NEAR], neighbors[:, 1 + NEAR :]
    table, sums = region.table, region.sums
    projected, depths = network.project(region.shown), sums.sum(dim=1)
    residuals = projected - table.weights(depths) @ region.expected.sum(dim=1)
    of_block = sums.sum(dim=0)
    visible = (~masks.hides & (of_block > 0)).float()
    depth = (sums[centers] * visible).sum(dim=1)
    shown = ((visible @ of_block) / of_block.sum().clamp(min=1)).clamp(min=1e-6)
    own = region.shown.take(centers)
    hidden = own.keep(masks.hides[own.rows(), masks.block_of()[own.genes.long()]])
    made_up = depth / shown
    at = table.weights(made_up)
    expected = (at[:, :, None] * visible[:, None]).flatten(1) @ region.expected.flatten(0, 1)
    center = projected[centers] - network.project(hidden) - expected
    rings = [F.embedding_bag(ring, residuals, mode="mean") for ring in (near, far)]
    around = F.embedding_bag(neighbors[:, 1:], residuals, mode="mean")
    n_measured = region.measured.sum()
    facts = network.describe(made_up, depths[neighbors[:, 1:]].mean(1), depths.mean(), n_measured)
    logits = network.sharpness(facts).exp() * (
        network.queries(center, around) @ network.keys(residuals).T
    )
    for ring, bonus in zip((near, far), network.bonus, strict=True):
        logits = logits.scatter_add(1, ring, bonus.expand(ring.shape))
    weights = logits.scatter(1, centers[:, None], -torch.inf).softmax(dim=1)
    unusual = network.project_slide(table.profile, region.measured)
    operators = {
        "center": center,
        "near": rings[0],
        "far": rings[1],
        "similar": weights @ residuals,
        "slide": unusual.expand(len(centers), -1),
    }
    level = network.level(facts).squeeze(1)
    others = of_block - sums[centers]
    similar = ((weights @ sums) * visible).sum(dim=1) / (weights @ depths).clamp(min=1e-6)
    slide = (others * visible).sum(dim=1) / others.sum(dim=1).clamp(min=1)
    base = torch.lerp(similar, slide, torch.sigmoid(level))
    z = network.embed(network.pool(operators, facts))
    return _Seen(centers, weights, level, depth / base.clamp(min=1e-6), z)


def _predictions(
    network: Context, region: _Region, seen: _Seen, masks: Masks, missing: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
    """Predict each block where it is hidden: log1p counts, true counts, what to score, missing."""
    sizes = torch.diff(masks.ends).tolist()
    decoders = torch.split(_permuted(network.decoder, masks.order), sizes)
    absent = torch.split(_permuted(network.missing, masks.order), sizes)
    usual = torch.split(network.usual_share(region.measured)[masks.order], sizes)
    depths = region.sums.sum(dim=1)
    n_others, counted = max(1, len(depths) - 1), (depths.sum() - depths[seen.centers]).clamp(min=1)
    weighed = (seen.weights @ depths).clamp(min=1e-6)
    for number, gone in enumerate(missing.tolist()):
        block = region.blocks[number]
        if gone:
            base = seen.scale[:, None] * usual[number]
            rate = network.correct(base, seen.z, absent[number])
            yield log1p_mean(rate), block[seen.centers], region.scored[number], True
            continue
        rows = masks.hides[:, number].nonzero().squeeze(1)
        truth = block.index_select(0, seen.centers[rows])
        others = block.sum(dim=0) - truth
        similar = seen.weights.index_select(0, rows) @ block / weighed[rows, None]
        slide = others / counted[rows, None]
        base = network.base(seen.level[rows], similar, slide, others / n_others)
        rate = network.correct(seen.scale[rows, None] * base, seen.z[rows], decoders[number])
        yield log1p_mean(rate), truth, region.scored[number], False


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
