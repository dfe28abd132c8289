"""SAGE-FM: a lightweight, interpretable foundation model for spatial transcriptomics.

The heavy libraries are imported when they are first used, so that ``import sagefm`` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sagefm._errors import InputError

if TYPE_CHECKING:
    from sagefm import evaluate, pl, pp, pretrain, report, tl
    from sagefm.model import SageFM
    from sagefm.pp.read import read

__version__ = "0.1.0"
__all__ = ["InputError", "SageFM", "evaluate", "pl", "pp", "pretrain", "read", "report", "tl"]

_HOMES = {"SageFM": "sagefm.model", "read": "sagefm.pp.read"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"sagefm.{name}")
    raise AttributeError(f"module 'sagefm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
