"""Impute genes, and estimate how well each is predicted."""

from sagefm.tl.imputation._impute import impute

__all__ = ["impute"]
