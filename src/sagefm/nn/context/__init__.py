"""The context network: the slide is its own context."""

from sagefm.nn.context.encoded import ContextSlide
from sagefm.nn.context.network import Context

__all__ = ["Context", "ContextSlide"]
