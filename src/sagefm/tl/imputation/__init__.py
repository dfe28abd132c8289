"""Predict genes that a slide lacks, and say how well."""

from sagefm.tl.imputation._impute import impute

__all__ = ["impute"]
