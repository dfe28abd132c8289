"""The published network (arXiv 2601.15504): one mean over the neighborhood, then a perceptron."""

from sagefm.nn.published.encoded import PublishedSlide
from sagefm.nn.published.network import Published

__all__ = ["Published", "PublishedSlide"]
