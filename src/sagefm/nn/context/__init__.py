"""The context network: the slide is its own context."""

from sagefm.nn.context.network import Context
from sagefm.nn.context.reading import ContextReading

__all__ = ["Context", "ContextReading"]
