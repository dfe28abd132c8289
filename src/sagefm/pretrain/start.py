"""Initial weights of a network, from the training spots."""

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from sagefm._errors import InputError
from sagefm.nn import Context, Network, Published, SparseRows
from sagefm.nn.context.background import Background
from sagefm.pretrain.data import Split, read_tiles
from sagefm.pretrain.recipe import NetworkTable
from sagefm.stats.sums import row_sums

_SPOTS, _LEAST = 3000, 20
"""Spots whose residuals are computed: in all, and at least of each slide."""
_SCALE = 0.5
"""Factor of residuals, as in the operators of the network."""
_MORE = 10
"""Axes that are computed and not kept, so that the last ones kept are accurate, too."""
_LEAST_STRENGTH = 0.01
"""Least strength of an axis, relative to the first, that scales its weights."""


def start(network: Network, split: Split, gene_mean: Tensor, *, seed: int) -> None:
    """Initialize the weights of a network that follow from the training spots.

    Parameters
    ----------
    gene_mean
        Mean log1p count of each gene over the training spots.
    seed
        Seed of the choice of spots and of the decomposition.
    """
    if isinstance(network, Published):
        network.start_from(gene_mean)
    elif isinstance(network, Context):
        residuals, usual = residuals_of(split, seed)
        network.start_from(*principal_axes(residuals, network.widths[0], seed), usual)


def require_axes(split: Split, network: NetworkTable) -> None:
    """Refuse a context network of more axes than there are genes or spots.

    Raises
    ------
    InputError
        There are fewer genes or fewer training spots.
    """
    n_each = _n_each(split)
    n_spots = sum(min(len(spots), n_each) for spots in split.training.values())
    n_genes, n_axes = len(split.source.vocabulary), network.widths[0]
    if network.name == "context" and n_axes > min(n_spots, n_genes):
        raise InputError(
            f"network.widths begins with {n_axes}: the {n_genes:,} genes of {n_spots:,} training "
            "spots have fewer axes; give fewer"
        )


def _n_each(split: Split) -> int:
    return max(_LEAST, _SPOTS // len(split.training))


def residuals_of(split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Compute residuals of training spots against their slides: one pass over the data.

    Parameters
    ----------
    seed
        Seed of the choice of spots.

    Returns
    -------
    residuals
        Some 3,000 spots (more of many slides: 20 of each) × genes, log1p counts.
    usual
        Genes: mean of log1p(10⁴ · fraction of the counts) over the slides that measured the gene.
    """
    chance = np.random.default_rng(seed)
    n_each, n_genes = _n_each(split), len(split.source.vocabulary)
    residuals, usual, n_measured = [], torch.zeros(n_genes), torch.zeros(n_genes)
    for slide, spots in split.training.items():
        tiles = list(read_tiles(split.source, {slide: spots}))
        counts = csr_matrix(vstack([t.counts[t.neighbors[part, 0]] for t, part in tiles]))
        total = torch.from_numpy(counts.sum(axis=0, dtype=np.float64).A1).float()
        sizes = torch.from_numpy(row_sums(counts)).float()
        background = Background.of(total, sizes)
        chosen = chance.permutation(len(spots))[:n_each]
        sample = SparseRows.from_scipy(counts[chosen].log1p())
        residuals.append(background.residuals(sample, sizes[torch.from_numpy(chosen)]))
        measured = torch.from_numpy(tiles[0][0].measured)
        usual += measured * (1e4 * background.profile).log1p()
        n_measured += measured
    return torch.cat(residuals), usual / n_measured.clamp(min=1)


def principal_axes(residuals: Tensor, n_axes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Compute the principal axes of residuals by a randomized decomposition (Halko et al., 2011).

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
