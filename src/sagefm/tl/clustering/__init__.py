"""Find tissue domains."""

from sagefm.tl.clustering._domains import Method, domains

__all__ = ["Method", "domains"]
