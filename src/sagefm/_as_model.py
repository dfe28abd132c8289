"""Models by name, as every verb takes them."""

from functools import lru_cache
from pathlib import Path

from sagefm._fetch import local_copy
from sagefm.model import SageFM


def as_model(model: SageFM | str | Path) -> SageFM:
    """Get a model as it is, or load it: ``"default"``, a path or an address.

    The last one that was loaded by name is kept, unless its file changes.
    """
    if isinstance(model, SageFM):
        return model
    file = local_copy(model)
    return _load(str(model), file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=1)
def _load(name: str, changed: int) -> SageFM:
    return SageFM.load(name)
