"""Describe domains: what marks them, what they may be, which touch, and how much there is."""

from sagefm.tl.description._describe import Description, describe
from sagefm.tl.description._markers import markers
from sagefm.tl.description._pathways import pathways
from sagefm.tl.description._shapes import touching

__all__ = ["Description", "describe", "markers", "pathways", "touching"]
