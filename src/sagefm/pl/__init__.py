"""Pictures, after the conventions of scanpy: they return Axes and take `show` and `save`."""

from sagefm.pl.spatial import spatial
from sagefm.pl.training import training

__all__ = ["spatial", "training"]
