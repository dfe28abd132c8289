"""Compare the default model with simple methods on simulated tissue, or on a slide of yours."""

from sagefm.demo.comparisons import MethodComparison, compare, compare_labels
from sagefm.demo.story import run

__all__ = ["MethodComparison", "compare", "compare_labels", "run"]
