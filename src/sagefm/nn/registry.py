"""The networks by name, and how each encodes a slide."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sagefm.nn.base import EncodedSlide, Network
from sagefm.nn.context import Context, ContextSlide
from sagefm.nn.multi_slide import MultiSlide
from sagefm.nn.published import Published, PublishedSlide

if TYPE_CHECKING:
    from sagefm.pp.aligned import AlignedSlide

NETWORKS: dict[str, type[Network]] = {"published": Published, "context": Context}


def build(name: str, n_genes: int, widths: Sequence[int]) -> Network:
    """Make a network by name, with fresh weights from torch's global random state."""
    return NETWORKS[name](n_genes, widths)


def encode(network: Network, slide: "AlignedSlide", profile: Tensor | None = None) -> EncodedSlide:
    """Compute what a network needs of a slide only once.

    Parameters
    ----------
    network
        One of :data:`NETWORKS`.
    slide
        Aligned to the genes of the network. Several sections are encoded one by one, where the
        network uses more of a slide than neighborhoods.
    profile
        As in :class:`~sagefm.nn.context.ContextSlide`, which is the only one to use it.
    """
    if isinstance(network, Published):
        return PublishedSlide(network, slide)
    if not isinstance(network, Context):
        raise TypeError(f"no way to encode a slide with a {type(network).__name__}")
    numbers, sections = np.unique(slide.sections, return_inverse=True)
    if len(numbers) == 1:
        return ContextSlide(network, slide, profile=profile)
    one_by_one = [slide.subset(np.flatnonzero(sections == i)) for i in range(len(numbers))]
    encoded = [ContextSlide(network, section, profile=profile) for section in one_by_one]
    return MultiSlide(encoded, sections)
