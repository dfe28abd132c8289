"""The published network (arXiv 2601.15504): one mean over the neighborhood, then a perceptron."""

from sagefm.nn.published.network import Published
from sagefm.nn.published.reading import PublishedReading

__all__ = ["Published", "PublishedReading"]
