"""What Poisson counts with the profile of a slide would show, at any depth."""

import math
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sagefm.nn.sparse import SparseRows
from sagefm.stats import poisson as _poisson

N_DEPTHS = 16
"""With 8, a spot of very few counts is off by half a standard deviation of the residuals."""
_SHALLOWEST = 0.2
"""Where the table begins, as a share of the least depth: masks make spots shallower."""


class Background(NamedTuple):
    """Mean log1p counts that spots of some depths would show, were each a draw from the slide.

    ``e(d) = E[log1p Poisson(d · profile)]``, tabulated at a few depths, evenly spaced on a
    logarithmic scale, and interpolated between them: so what is expected of every spot is a product
    of a narrow matrix with a few rows of genes, never spots × genes.
    """

    profile: Tensor
    """Genes: share of all counts of the slide."""
    logs: Tensor
    """(depths) their logarithms."""
    expected: Tensor
    """Depths × genes, log1p counts."""

    @classmethod
    def of(cls, total: Tensor, depths: Tensor) -> Self:
        """Tabulate a slide.

        Parameters
        ----------
        total
            Genes: counts over all spots.
        depths
            (spots) counts of each.
        """
        profile = total / total.sum().clamp(min=1)
        found = depths.clamp(min=1)
        low, high = math.log(_SHALLOWEST * float(found.min())), math.log(2 * float(found.max()))
        logs = torch.linspace(low, high, N_DEPTHS, device=total.device)
        return cls(profile, logs, log1p_mean(logs.exp()[:, None] * profile))

    def weights(self, depths: Tensor) -> Tensor:
        """Interpolate between the rows of the table, by cubics (Lagrange): spots × depths."""
        step = self.logs[1] - self.logs[0]
        at = ((depths.clamp(min=1e-3).log() - self.logs[0]) / step).clamp(0, N_DEPTHS - 1)
        first = (at.floor() - 1).clamp(0, N_DEPTHS - 4)
        x = at - first
        terms = torch.stack(
            [
                -(x - 1) * (x - 2) * (x - 3) / 6,
                x * (x - 2) * (x - 3) / 2,
                -x * (x - 1) * (x - 3) / 2,
                x * (x - 1) * (x - 2) / 6,
            ],
            dim=-1,
        )
        where = first.long()[..., None] + torch.arange(4, device=x.device)
        return terms.new_zeros(*x.shape, N_DEPTHS).scatter_(-1, where, terms)

    def residuals(self, rows: SparseRows, depths: Tensor) -> Tensor:
        """Take what is expected out of log1p counts: spots × genes, dense; for a few spots."""
        return rows.dense(len(self.profile)) - self.weights(depths) @ self.expected


def log1p_mean(rate: Tensor) -> Tensor:
    """Mean of log1p(Poisson(rate)), as :func:`sagefm.stats.poisson.log1p_mean`, differentiable."""
    mean: Tensor = _Log1pMean.apply(rate.log1p())  # type: ignore[no-untyped-call]
    return mean


def log1p_mean_slope(rate: Tensor) -> Tensor:
    """Differentiate :func:`log1p_mean` by the logarithm of the rate."""
    return _look_up(rate.log1p())[1] * rate / (1 + rate)


class _Log1pMean(torch.autograd.Function):
    """From log1p of the rate: piecewise linear, as the table is."""

    @staticmethod
    def forward(ctx: Any, at: Tensor) -> Tensor:
        mean, slope = _look_up(at)
        ctx.save_for_backward(slope)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient * slope


def _look_up(at: Tensor) -> tuple[Tensor, Tensor]:
    means, slopes = _tables(at.device)
    place = (at * _poisson.NODES).clamp_(0, len(slopes) - 1e-3)
    node = place.int()
    # index_select takes a quarter of the time of an index of many dimensions
    slope, mean = (part.index_select(0, node.view(-1)).view_as(at) for part in (slopes, means))
    return place.sub_(node).div_(_poisson.NODES).mul_(slope).add_(mean), slope


@lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    means = torch.from_numpy(_poisson.mean_table()).to(device)
    return means, (means[1:] - means[:-1]) * _poisson.NODES
