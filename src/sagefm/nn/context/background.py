"""The background: mean log1p counts of random draws from a slide, at any library size."""

import math
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sagefm.nn.sparse import SparseRows
from sagefm.stats import poisson as _poisson

N_SIZES = 16
"""With 8, a spot of very few counts is off by half a standard deviation of the residuals."""
_SMALLEST = 0.2
"""Where the table begins, as a fraction of the smallest library size: masks make it smaller."""


class Background(NamedTuple):
    """Mean log1p counts of random draws from the profile of a slide, by library size.

    ``e(n) = E[log1p Poisson(n · profile)]``, tabulated at a few library sizes, evenly spaced on a
    logarithmic scale, and interpolated between them: so the background of every spot is a product
    of a narrow matrix with a few rows of genes, never spots × genes.
    """

    profile: Tensor
    """Genes: fraction of all counts of the slide."""
    logs: Tensor
    """(sizes) logarithms of the tabulated library sizes."""
    expected: Tensor
    """Sizes × genes, log1p counts."""
    mean_size: Tensor
    """Mean library size."""

    @classmethod
    def of(cls, total: Tensor, library_size: Tensor) -> Self:
        """Tabulate a slide, or some of its spots.

        Parameters
        ----------
        total
            Genes: counts over these spots.
        library_size
            (spots) counts of each.
        """
        profile = total / total.sum().clamp(min=1)
        # Of no spot at all, which a mask of the only neighborhood leaves, nothing is expected.
        sizes = library_size.clamp(min=1) if len(library_size) else total.new_ones(1)
        low, high = math.log(_SMALLEST * float(sizes.min())), math.log(2 * float(sizes.max()))
        logs = torch.linspace(low, high, N_SIZES, device=total.device)
        expected = log1p_mean(logs.exp()[:, None] * profile)
        return cls(profile, logs, expected, sizes.mean())

    def weights(self, library_size: Tensor) -> Tensor:
        """Interpolate between the rows of the table, by cubics (Lagrange): spots × sizes."""
        step = self.logs[1] - self.logs[0]
        at = ((library_size.clamp(min=1e-3).log() - self.logs[0]) / step).clamp(0, N_SIZES - 1)
        first = (at.floor() - 1).clamp(0, N_SIZES - 4)
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
        return terms.new_zeros(*x.shape, N_SIZES).scatter_(-1, where, terms)

    def residuals(self, rows: SparseRows, library_size: Tensor) -> Tensor:
        """Subtract the background from log1p counts: spots × genes, dense; for a few spots."""
        return rows.dense(len(self.profile)) - self.weights(library_size) @ self.expected


def log1p_mean(rate: Tensor) -> Tensor:
    """Mean of log1p(Poisson(rate)), as :func:`sagefm.stats.poisson.log1p_mean`, differentiable."""
    mean: Tensor = _Log1pMean.apply(rate.log1p())  # type: ignore[no-untyped-call]
    return mean


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
