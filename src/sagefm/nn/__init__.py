"""The networks: torch only, no AnnData."""

from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, Network
from sagefm.nn.context import Context
from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.published import Published
from sagefm.nn.registry import NETWORKS, build, encode
from sagefm.nn.sparse import SparseRows

__all__ = [
    "NETWORKS",
    "Centers",
    "Context",
    "EncodedSlide",
    "MaskedGenes",
    "Masks",
    "Network",
    "Published",
    "SparseRows",
    "build",
    "draw_masks",
    "encode",
]
