"""What masks leave visible of centers and of their neighborhoods."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from sagefm._types import Positions
from sagefm.nn.base import MaskedGenes
from sagefm.nn.context.network import Visible, split_rings
from sagefm.nn.sparse import SparseRows, sum_over

if TYPE_CHECKING:
    from sagefm.nn.context.encoded import ContextSlide
    from sagefm.nn.context.whole import SlideBackground


def masked_counts(masked: MaskedGenes, slide: "ContextSlide") -> MaskedGenes | None:
    """Leave out genes that the slide lacks, and genes that no center masks."""
    kept = slide.measured.cpu().numpy()[masked.genes]
    if masked.mask is not None:
        kept &= masked.mask.any(axis=0)
        masked = masked._replace(mask=masked.mask[:, kept])
    return masked._replace(genes=masked.genes[kept]) if kept.any() else None


def of_centers(masked: MaskedGenes, rows: slice | Positions) -> MaskedGenes:
    """Keep the masks of some centers."""
    return masked if masked.mask is None else masked._replace(mask=masked.mask[rows])


def visible_of(
    slide: "ContextSlide",
    expected: "SlideBackground",
    neighbors: Positions,
    whole: Visible,
    masked: MaskedGenes,
) -> Visible:
    """Compute anew, from what is not masked, the center, or all rings of the neighborhood.

    To subtract what is masked would leave its rounding errors.
    """
    background, first = expected.background, slide.network.first
    genes = torch.from_numpy(masked.genes).to(slide.device)
    mask = torch.ones(len(neighbors), 1, device=slide.device)
    if masked.mask is not None:
        mask = torch.from_numpy(masked.mask).to(slide.device).float()
    fraction = (1 - (mask * background.profile[genes]).sum(dim=1)).clamp(min=1e-6)
    residuals, sizes = list(whole.residuals), list(whole.library_sizes)
    rings = [ring.numpy() for ring in split_rings(torch.from_numpy(neighbors))]
    for i, ring in enumerate(rings if masked.neighbors else rings[:1]):
        scaled_up = _visible_sizes(slide, ring, masked) / fraction[:, None]
        weights = background.weights(scaled_up).mean(dim=1)
        hidden = (mask * (weights @ background.expected[:, genes])) @ first[genes]
        log1p = unmasked(sum_over(slide.slide.log1p, ring), masked)
        projected = SparseRows.from_scipy(log1p, slide.device).times(first) / ring.shape[1]
        residuals[i] = projected - (weights @ expected.projected - hidden)
        sizes[i] = scaled_up.mean(dim=1)
    center, near, far = residuals
    return Visible(
        (center, near, far), (sizes[0], sizes[1], sizes[2]), sizes[0] * fraction, masked.neighbors
    )


def _visible_sizes(slide: "ContextSlide", ring: Positions, masked: MaskedGenes) -> Tensor:
    """Sum the counts of each spot of a ring that are not masked: centers × spots of the ring."""
    sums = [unmasked(slide.counts[rows], masked).sum(axis=1, dtype=np.float64) for rows in ring.T]
    return torch.from_numpy(np.hstack(sums).astype(np.float32)).to(slide.device)


def unmasked(rows: csr_matrix, masked: MaskedGenes) -> csr_matrix:
    """Set the masked genes of centers to 0: centers × genes."""
    place = np.full(rows.shape[1], -1)
    place[masked.genes] = np.arange(len(masked.genes))
    at = place[rows.indices]
    kept = at < 0
    if masked.mask is not None:
        of_row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        kept[~kept] = ~masked.mask[of_row[~kept], at[~kept]]
    return csr_matrix((rows.data * kept, rows.indices, rows.indptr), shape=rows.shape)
