"""The strongest influences, without the dense genes × genes matrix."""

import torch
from torch import Tensor

_ENTRIES = 2**23
"""Numbers (32 MB) that a block of influences holds."""


@torch.no_grad()
def strongest(
    first: Tensor, gradient: Tensor, own: Tensor, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the strongest influences on each target.

    Parameters
    ----------
    first
        Sources × width: first-layer weights of the genes that may influence.
    gradient
        Targets × width, from :meth:`~sagefm.nn.base.Centers.influence`.
    own
        For each target the row of `first` that is the same gene, -1 where there is none. A gene's
        influence on itself is left out.
    top
        How many to keep per target, by size. Of equal ones the earlier sources are kept; what is
        exactly zero never is.

    Returns
    -------
    Row of `first`, row of `gradient` and their product, sorted by target, then by falling size.
    """
    at_once = max(1, _ENTRIES // len(first))
    found = []
    for targets in torch.split(gradient.any(dim=1).nonzero().squeeze(1), at_once):
        values = gradient[targets] @ first.T
        itself = (own[targets] >= 0).nonzero().squeeze(1)
        values[itself, own[targets][itself]] = 0
        sources = _largest(values.abs(), top)
        values = values.gather(1, sources)
        kept = values != 0
        found.append((sources[kept], targets.unsqueeze(1).expand_as(sources)[kept], values[kept]))
    if not found:
        nothing = own[:0]
        return nothing, nothing, gradient.new_empty(0)
    joined = [torch.cat(part) for part in zip(*found, strict=True)]
    return joined[0], joined[1], joined[2]


def _largest(size: Tensor, top: int) -> Tensor:
    """Find the columns of the largest numbers of each row, the earlier first where they tie."""
    columns = size.topk(min(top + 1, size.shape[1]))
    if top < size.shape[1]:  # which of those that tie for the last place it keeps is not said
        tied = (columns.values[:, -1] == columns.values[:, -2]).nonzero().squeeze(1)
        chosen = columns.indices[:, :top]
        chosen[tied] = size[tied].sort(dim=1, descending=True, stable=True).indices[:, :top]
    else:
        chosen = columns.indices
    chosen = chosen.sort(dim=1).values
    order = size.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices
    return chosen.gather(1, order)
