"""The networks: torch only, no AnnData."""

from sagefm.nn.context import Context
from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.network import Centers, Hidden, Network, Reading
from sagefm.nn.published import Published
from sagefm.nn.registry import NETWORKS, build, read
from sagefm.nn.sparse import SparseRows

__all__ = [
    "NETWORKS",
    "Centers",
    "Context",
    "Hidden",
    "Masks",
    "Network",
    "Published",
    "Reading",
    "SparseRows",
    "build",
    "draw_masks",
    "read",
]
