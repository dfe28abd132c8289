"""How the predictions of a network depend on its input: exact derivatives, for all genes at once.

With pooled input P, slopes Λ of the leaky ReLUs and readout D, spot i has

    ∂x̂ₖ / ∂P = gateₖ · Dₖ W₅ Λ₄ W₄ Λ₃ W₃ Λ₂ W₂ Λ₁        gateₖ = [x̂ₖ > 0]

and P is linear in the log1p counts, so that the mean over spots of this row, one per predicted
gene, is all that the influence of every gene on it needs: genes × width instead of genes × genes.

For few targets each row is pulled back through the layers. For many, what lies between the
readout and the input does not depend on the target: it is made once per spot, for the units of the
last hidden layer, and shared by all targets.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sagefm.nn.published.network import NEGATIVE_SLOPE, Published

_SPOTS = 1024
"""Spots whose layers and gates are in memory together."""
_ENTRIES = 2**24
"""Numbers (64 MB) that a block of derivatives holds."""


@torch.no_grad()
def mean_gradient(
    network: Published,
    pooled: Tensor,
    targets: Tensor,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Average over spots the derivative of predictions by the pooled input.

    Parameters
    ----------
    network
        The network.
    pooled
        Spots × first width, from :meth:`Published.pool`.
    targets
        Positions of the predicted genes.
    progress
        Called with the number of spots that are done.

    Returns
    -------
    Targets × first width, float32. Where a ReLU or leaky ReLU has no derivative, at zero, its
    slope is that of negative numbers.
    """
    *hidden, last = _weights(network)
    readout = network.decoder.weight[targets] @ last
    add = _add_by_unit if hidden and len(targets) > last.shape[1] else _add_by_target
    total = torch.zeros(len(targets), pooled.shape[1], device=pooled.device)
    done = 0
    for block in torch.split(pooled, _SPOTS):
        *layers, embedding = _layers(network, block)
        on = network.decode(embedding, targets) > 0
        slopes = [torch.where(layer > 0, 1.0, NEGATIVE_SLOPE) for layer in layers]
        del layers, embedding
        for finished in add(total, hidden, readout, slopes, on):
            if progress is not None:
                progress(done + finished)
        done += len(block)
    return total / len(pooled)


@torch.no_grad()
def path_gradient(network: Published, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Average, along the straight line between two inputs, the derivative of the embedding.

    It is the derivative of the embedding's projection on the direction from the embedding of
    `start` to that of `end`. Within each step of the line the slope of a unit is its rise over its
    run, which is its slope where it does not bend and makes the sum exact where it does: gradient ·
    (`end` - `start`) is the distance of the two embeddings, for any number of steps.

    Parameters
    ----------
    network
        As in :func:`mean_gradient`.
    start, end
        Pooled inputs: first width.
    steps
        Into how many steps to cut the line.

    Returns
    -------
    First width; zeros where the two embeddings are the same.
    """
    fraction = torch.linspace(0, 1, steps + 1, device=start.device).unsqueeze(1)
    *layers, embedding = _layers(network, start + fraction * (end - start))
    *hidden, last = _weights(network)
    direction = F.normalize(embedding[-1] - embedding[0], dim=0) @ last
    slopes = [_mean_slopes(layer[:-1], layer[1:]) for layer in layers]
    rows = (direction * slopes[-1]).unsqueeze(1)
    return _pull_back(rows, hidden, slopes[:-1]).mean(dim=(0, 1))


def _weights(network: Published) -> list[Tensor]:
    return [layer.get_parameter("weight") for layer in network.encoder]


def _layers(network: Published, pooled: Tensor) -> list[Tensor]:
    """Compute the input of each leaky ReLU, then the embedding: each spots × width."""
    values = [pooled + network.first_bias]
    for layer in network.encoder:
        values.append(layer(F.leaky_relu(values[-1], NEGATIVE_SLOPE)))
    return values


def _mean_slopes(before: Tensor, after: Tensor) -> Tensor:
    """Rise over run of leaky ReLUs; their slope where both ends lie on one side of the bend."""
    rise = F.leaky_relu(after, NEGATIVE_SLOPE) - F.leaky_relu(before, NEGATIVE_SLOPE)
    bent = (after > 0) != (before > 0)
    run = torch.where(bent, after - before, 1.0)
    return torch.where(bent, rise / run, torch.where(after > 0, 1.0, NEGATIVE_SLOPE))


def _pull_back(rows: Tensor, weights: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """Pull derivatives (spots × rows × width) back from the output of some layers to their input.

    `slopes` are those of the leaky ReLU before each layer, spots × width.
    """
    for weight, slope in zip(reversed(weights), reversed(slopes), strict=True):
        rows = (rows @ weight).mul_(slope.unsqueeze(1))
    return rows


def _add_by_target(
    total: Tensor, weights: Sequence[Tensor], readout: Tensor, slopes: Sequence[Tensor], on: Tensor
) -> Iterator[int]:
    """Add up the derivatives of each target, each pulled back by itself."""
    widest = max(slope.shape[1] for slope in slopes)
    at_once = max(1, _ENTRIES // (len(readout) * widest))
    for begin in range(0, len(on), at_once):
        block = slice(begin, begin + at_once)
        rows = on[block].unsqueeze(2) * (readout * slopes[-1][block].unsqueeze(1))
        total += _pull_back(rows, weights, [slope[block] for slope in slopes[:-1]]).sum(dim=0)
        yield min(begin + at_once, len(on))


def _add_by_unit(
    total: Tensor, weights: Sequence[Tensor], readout: Tensor, slopes: Sequence[Tensor], on: Tensor
) -> Iterator[int]:
    """Do the same by the derivatives of the last hidden layer's units, which all targets fraction.

    A target is above zero in most spots or below it in most. What most do costs one product for
    all spots: the sum over spots of the units' derivatives. Only where a spot differs is the
    product made for it, and added or taken away.
    """
    usual = 2 * on.sum(dim=0) > len(on)
    differs = on != usual
    signed = torch.where(usual, -1.0, 1.0).unsqueeze(1) * readout
    *before, last = weights
    whole = torch.zeros(len(last), total.shape[1], device=total.device)
    at_once = max(1, _ENTRIES // 2 // (len(last) * max(slope.shape[1] for slope in slopes)))
    for begin in range(0, len(on), at_once):
        block = slice(begin, begin + at_once)
        *earlier, previous, final = (slope[block] for slope in slopes)
        units = _pull_back(last * previous.unsqueeze(1), before, earlier) * final.unsqueeze(2)
        whole += units.sum(dim=0)
        for unit, different in zip(units, differs[block], strict=True):
            which = different.nonzero().squeeze(1)
            total[which] += signed[which] @ unit
        yield min(begin + at_once, len(on))
    total += (usual.unsqueeze(1) * readout) @ whole
