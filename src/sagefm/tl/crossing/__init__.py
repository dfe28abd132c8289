"""Predict one modality of the spots from the neighborhood in another."""

from sagefm.tl.crossing._cross import cross, key_of

__all__ = ["cross", "key_of"]
