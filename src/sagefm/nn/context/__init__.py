"""The context network: the slide is its own context."""

from sagefm.nn.context.adaptation import adapted
from sagefm.nn.context.encoded import ContextSlide
from sagefm.nn.context.folds import CrossFit, cross_fit, encode_folds, sections_of
from sagefm.nn.context.network import Context

__all__ = [
    "Context",
    "ContextSlide",
    "CrossFit",
    "adapted",
    "cross_fit",
    "encode_folds",
    "sections_of",
]
