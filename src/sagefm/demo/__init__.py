"""Compare the default model with simple methods on simulated tissue, or on a slide of yours."""

from sagefm.demo.comparisons import Comparison, compare, compare_labels
from sagefm.demo.story import run

__all__ = ["Comparison", "compare", "compare_labels", "run"]
