"""The strongest influences, without the dense genes × genes matrix."""

import torch
from torch import Tensor

_ENTRIES = 2**19
"""Numbers (2 MB) that a block of influences holds."""


@torch.no_grad()
def strongest(
    first: Tensor, gradient: Tensor, own: Tensor, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the strongest influences of all sources on all targets.

    Parameters
    ----------
    first
        Sources × width: first-layer weights of the genes that may influence.
    gradient
        Targets × width, from :meth:`~sagefm.nn.base.Centers.influence`.
    own
        For each target the row of `first` that is the same gene, -1 where there is none. A gene's
        influence on itself is left out.
    n
        How many to keep, by size. Of equal ones the earlier targets are kept, then the earlier
        sources; what is exactly zero never is.

    Returns
    -------
    Row of `first`, row of `gradient` and their product, by falling size.
    """
    at_once = max(1, _ENTRIES // len(first))
    kept: list[tuple[Tensor, Tensor, Tensor]] = [(own[:0], own[:0], gradient.new_empty(0))]
    least, n_kept = 0.0, 0
    for targets in torch.split(gradient.any(dim=1).nonzero().squeeze(1), at_once):
        values = gradient[targets] @ first.T
        itself = (own[targets] >= 0).nonzero().squeeze(1)
        values[itself, own[targets][itself]] = 0
        at, sources = (values.abs() > least).nonzero(as_tuple=True)
        kept.append((sources, targets[at], values[at, sources]))
        n_kept += len(at)
        if n_kept > n:
            kept, n_kept = [_largest(kept, n)], n
            least = float(kept[0][2][-1].abs())
    return _largest(kept, n)


def _largest(parts: list[tuple[Tensor, Tensor, Tensor]], n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Join edges and keep the largest, the earlier first where they tie."""
    sources, targets, values = map(torch.cat, zip(*parts, strict=True))
    order = values.abs().sort(descending=True, stable=True).indices[:n]
    return sources[order], targets[order], values[order]
