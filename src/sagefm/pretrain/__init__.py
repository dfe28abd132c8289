"""Training of networks on many slides."""

import importlib
from typing import TYPE_CHECKING, Any

from sagefm._extras import require

if TYPE_CHECKING:
    from sagefm.pretrain.corpus import Corpus
    from sagefm.pretrain.fitting import TrainingResult, fit
    from sagefm.pretrain.recipe import Recipe
    from sagefm.pretrain.refitting import refits

__all__ = ["Corpus", "Recipe", "TrainingResult", "fit", "refits"]

# A corpus can be used without the libraries that train.
_HOMES = {
    "Corpus": "corpus", "Recipe": "recipe", "TrainingResult": "fitting", "fit": "fitting",
    "refits": "refitting",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        if name != "Corpus":
            require("pydantic", "train", "training")
        return getattr(importlib.import_module(f"sagefm.pretrain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sagefm.pretrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
