"""Which genes of a center are hidden while the network learns to predict them."""

import torch
from torch import Tensor


def draw_masks(n_spots: int, n_genes: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Hide the same number of genes in each spot, drawn afresh for each.

    Parameters
    ----------
    fraction
        Share of the genes to hide (0.3 in the paper), rounded to a whole number, one at least.
    generator
        Source of chance; it decides the device.

    Returns
    -------
    Spots × genes boolean, true where hidden.
    """
    n_hidden = max(1, round(fraction * n_genes))
    # Integers rather than floats: twice as fast to select from, and ties are as good as absent.
    draws = torch.empty(n_spots, n_genes, dtype=torch.int32, device=generator.device)
    draws.random_(generator=generator)
    last = draws.kthvalue(n_hidden, dim=1, keepdim=True).values
    return draws <= last
