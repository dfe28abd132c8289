"""The context network: the slide is its own context."""

from sagefm.nn.context.adaptation import adapted
from sagefm.nn.context.encoded import ContextSlide
from sagefm.nn.context.folds import CrossFit, cross_fit, encode_folds, sections_of
from sagefm.nn.context.network import Context
from sagefm.nn.context.whole import WholeSlide

__all__ = [
    "Context",
    "ContextSlide",
    "CrossFit",
    "WholeSlide",
    "adapted",
    "cross_fit",
    "encode_folds",
    "sections_of",
]
