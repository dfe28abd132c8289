"""Tissue domains: clusters of spots."""

from sagefm.tl.clustering._coarsen import coarsen
from sagefm.tl.clustering._domains import Method, domains

__all__ = ["Method", "coarsen", "domains"]
