"""Carry labels or domains of annotated slides over to others."""

from sagefm.tl.mapping._map import map

__all__ = ["map"]
