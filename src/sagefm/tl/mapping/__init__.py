"""Carry labels or domains of annotated slides over to others."""

from sagefm.tl.mapping._map import map  # noqa: A004

__all__ = ["map"]
