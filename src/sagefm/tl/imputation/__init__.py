"""Predict genes that a slide lacks, and say how well."""

from sagefm.tl.imputation._impute import impute
from sagefm.tl.imputation._recovery import HiddenGenes

__all__ = ["HiddenGenes", "impute"]
