"""Find rare populations."""

from sagefm.tl.rarity._rare import rare

__all__ = ["rare"]
