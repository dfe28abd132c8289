"""How predictions of the context network depend on what it pools: exact, for all genes at once.

With rates λ, and g = ∂ E[log1p Poisson(λ)] / ∂ log λ, spot i has ``∂x̂ₖ / ∂P = gₖ Dₖ ∂z/∂P``. The
Jacobian of z is made once per spot and shared by all genes.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagefm.nn.context.background import log1p_mean_slope
from sagefm.nn.context.network import Context

_SPOTS = 64
"""Spots whose Jacobians stand in memory together."""


@torch.no_grad()
def mean_gradients(
    network: Context,
    pooled: Tensor,
    weights: Tensor,
    decoder: Tensor,
    rates: Iterable[Tensor],
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Average over spots the derivative of predictions by what is pooled.

    Parameters
    ----------
    pooled
        Spots × hidden width.
    weights
        (spots) for the second average.
    decoder
        Genes × width of z: the corrections of the predicted genes.
    rates
        Their predicted counts, spots × genes, some spots after the other.
    progress
        Is told how many spots are done.

    Returns
    -------
    Genes × hidden width, twice: the mean, and the mean of weight times derivative.
    """
    total = pooled.new_zeros(2, len(decoder), pooled.shape[1])
    done = 0
    for part in rates:
        for rate in torch.split(part, _SPOTS):
            rows = slice(done, done + len(rate))
            jacobians, z = jacobian(network, pooled[rows]), network.embed(pooled[rows])
            slope = log1p_mean_slope(rate) * network.correction_counts(z, decoder)
            for one, own, weight in zip(slope, jacobians, weights[rows], strict=True):
                gradient = (one[:, None] * decoder) @ own
                total[0] += gradient
                total[1].add_(gradient, alpha=float(weight))
            done += len(rate)
            if progress is not None:
                progress(done)
    return total[0] / len(pooled), total[1] / len(pooled)


def jacobian(network: Context, pooled: Tensor) -> Tensor:
    """Differentiate z by what is pooled: spots × width of z × hidden width."""
    *layers, last = (cast(nn.Linear, layer) for layer in network.encoder)
    normed = network.norm(pooled)
    value, slopes = F.gelu(normed), [_gelu_slope(normed)]
    for layer in layers:
        raw = layer(value)
        value = F.gelu(raw)
        slopes.append(_gelu_slope(raw))
    rows = last.weight.expand(len(pooled), -1, -1)
    for layer, slope in zip(reversed(layers), reversed(slopes[1:]), strict=True):
        rows = (rows * slope[:, None]) @ layer.weight
    return _through_norm(network.norm, pooled, rows * slopes[0][:, None])


def _gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / (2 * torch.pi) ** 0.5
    slope: Tensor = torch.special.ndtr(x) + x * density
    return slope


def _through_norm(norm: nn.LayerNorm, x: Tensor, rows: Tensor) -> Tensor:
    """Pull derivatives by a layer norm's output back to its input."""
    spread = (x.var(dim=1, correction=0) + norm.eps).sqrt()[:, None]
    unit = ((x - x.mean(dim=1, keepdim=True)) / spread)[:, None]
    rows = rows * norm.weight
    along = (rows * unit).mean(dim=2, keepdim=True) * unit
    centered: Tensor = rows - rows.mean(dim=2, keepdim=True) - along
    return centered / spread[:, None]
