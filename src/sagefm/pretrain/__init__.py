"""From slides to weights."""

from sagefm.pretrain.fit import Result, fit
from sagefm.pretrain.recipe import Recipe

__all__ = ["Recipe", "Result", "fit"]
