"""The network itself: torch only, no AnnData."""

from sagefm.nn.masking import draw_masks
from sagefm.nn.network import NETWORKS, Network, SparseRows, build

__all__ = ["NETWORKS", "Network", "SparseRows", "build", "draw_masks"]
