"""The networks: torch only, no AnnData."""

from sagefm.nn.base import Centers, EncodedSlide, MaskedGenes, NeighborhoodChange, Network
from sagefm.nn.context import Context, CrossFit, adapted, cross_fit, encode_folds, sections_of
from sagefm.nn.masking import Masks, draw_masks
from sagefm.nn.parts import SlideParts
from sagefm.nn.published import Published
from sagefm.nn.registry import NETWORKS, build, encode
from sagefm.nn.sparse import SparseRows, project_log1p

__all__ = [
    "NETWORKS",
    "Centers",
    "Context",
    "CrossFit",
    "EncodedSlide",
    "MaskedGenes",
    "Masks",
    "NeighborhoodChange",
    "Network",
    "Published",
    "SlideParts",
    "SparseRows",
    "adapted",
    "build",
    "cross_fit",
    "draw_masks",
    "encode",
    "encode_folds",
    "project_log1p",
    "sections_of",
]
