"""The networks by name, and how each encodes a slide."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sagefm.nn.base import EncodedSlide, Network
from sagefm.nn.context import Context, EncodedByContext
from sagefm.nn.multi_slide import MultiSlide
from sagefm.nn.published import EncodedByPublished, Published

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

NETWORKS: dict[str, type[Network]] = {"published": Published, "context": Context}


def build(name: str, n_genes: int, widths: Sequence[int]) -> Network:
    """Make a network by name, with fresh weights from torch's global random state."""
    return NETWORKS[name](n_genes, widths)


def encode(network: Network, slide: "AlignedSlide") -> EncodedSlide:
    """Compute what a network needs of a slide only once, whatever is then asked of its spots.

    Parameters
    ----------
    network
        One of :data:`NETWORKS`.
    slide
        Aligned to the genes of the network; several sections are encoded one by one, where a
        network looks beyond neighborhoods.
    """
    if isinstance(network, Published):  # it looks no further than neighborhoods
        return EncodedByPublished(network, slide.log1p)
    if not isinstance(network, Context):
        raise TypeError(f"no way to encode a slide with a {type(network).__name__}")
    numbers, codes = np.unique(slide.sections, return_inverse=True)
    if len(numbers) == 1:
        return EncodedByContext(network, slide.log1p, slide.measured)
    each = [
        EncodedByContext(network, slide.log1p[codes == code], slide.measured)
        for code in range(len(numbers))
    ]
    return MultiSlide(each, codes)
