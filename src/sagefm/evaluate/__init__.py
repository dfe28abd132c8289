"""Results beside their baselines."""

from sagefm.evaluate.baselines import pca
from sagefm.evaluate.protocols import domain_recovery

__all__ = ["domain_recovery", "pca"]
