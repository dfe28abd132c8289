"""The network itself: torch only, no AnnData."""

from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.network import NETWORKS, Network, build
from sagefm.nn.sparse import SparseRows

__all__ = ["NETWORKS", "Masks", "Network", "SparseRows", "build", "draw_masks"]
