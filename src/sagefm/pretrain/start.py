"""What the weights of a network begin with, from the training spots."""

import numpy as np
import torch
from scipy.sparse import vstack
from torch import Tensor

from sagefm._errors import InputError
from sagefm.nn import Context, Network, Published, SparseRows
from sagefm.nn.context.background import Background
from sagefm.pretrain.data import Split, regions_of
from sagefm.pretrain.recipe import NetworkTable

_SPOTS, _LEAST = 3000, 20
"""Whose residuals are looked at: so many in all, but not fewer of a slide."""
_SCALE = 0.5
"""Of residuals, as the operators of the network have them."""
_MORE = 10
"""Axes that are computed beside those that are kept: then the last of these are good, too."""
_LEAST_STRENGTH = 0.01
"""Of an axis, next to the first: weaker ones are made up for no further."""


def start(network: Network, split: Split, gene_mean: Tensor, *, seed: int) -> None:
    """Give an untrained network what it can be told of the training spots.

    Parameters
    ----------
    gene_mean
        Mean log1p count of each gene over the training spots.
    seed
        Of the choice of spots, and of the search for their principal axes.
    """
    if isinstance(network, Published):
        network.start_from(gene_mean)
    elif isinstance(network, Context):
        residuals, usual = residuals_of(split, seed)
        network.start_from(*principal_axes(residuals, network.widths[0], seed), usual)


def require_axes(split: Split, network: NetworkTable) -> None:
    """Refuse a context network that begins with more axes than there is data to find them in.

    Raises
    ------
    InputError
        There are fewer genes or fewer spots to look at.
    """
    n_each = _n_each(split)
    n_spots = sum(min(len(spots), n_each) for spots in split.training.values())
    n_genes, n_axes = len(split.source.vocabulary), network.widths[0]
    if network.name == "context" and n_axes > min(n_spots, n_genes):
        raise InputError(
            f"network.widths begins with {n_axes}: as many axes cannot be found in {n_genes:,} "
            f"genes of {n_spots:,} training spots; give fewer"
        )


def _n_each(split: Split) -> int:
    return max(_LEAST, _SPOTS // len(split.training))


def residuals_of(split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Compare training spots with random draws from their slides: one pass over the data.

    Parameters
    ----------
    seed
        Of the choice of spots.

    Returns
    -------
    residuals
        Some 3,000 spots (more of many slides: 20 of each) × genes, log1p counts.
    usual
        Genes: mean over the slides that measured it of log1p(10⁴ · share of the counts).
    """
    chance = np.random.default_rng(seed)
    n_each, n_genes = _n_each(split), len(split.source.vocabulary)
    residuals, usual, n_measured = [], torch.zeros(n_genes), torch.zeros(n_genes)
    for slide, spots in split.training.items():
        found = list(regions_of(split.source, {slide: spots}))
        rows = vstack([r.log1p[r.neighbors[part, 0]] for r, part in found], format="csr")
        counts = rows.expm1()
        total, depths = (
            torch.from_numpy(np.asarray(counts.sum(axis=axis)).ravel()).float() for axis in (0, 1)
        )
        table = Background.of(total, depths)
        chosen = chance.permutation(len(spots))[:n_each]
        sample = SparseRows.from_scipy(rows[chosen])
        residuals.append(table.residuals(sample, depths[torch.from_numpy(chosen)]))
        measured = torch.from_numpy(found[0][0].measured)
        usual += measured * (1e4 * table.profile).log1p()
        n_measured += measured
    return torch.cat(residuals), usual / n_measured.clamp(min=1)


def principal_axes(residuals: Tensor, n_axes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find the axes along which residuals spread most, by a randomized decomposition.

    Parameters
    ----------
    residuals
        Spots × genes.

    Returns
    -------
    Genes × axes, orthonormal; and the standard deviation along each axis.
    """
    n_spots, n_genes = residuals.shape
    n_found = min(n_axes + _MORE, n_spots, n_genes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, values, axes = torch.svd_lowrank(_SCALE * residuals, q=n_found, niter=2)
    strength = values[:n_axes] / n_spots**0.5
    return axes[:, :n_axes].contiguous(), strength.clamp(min=_LEAST_STRENGTH * float(strength[0]))
