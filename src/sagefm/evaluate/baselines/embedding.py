"""The interface of the embeddings that are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

Kind = Literal["baseline", "model", "control"]


@dataclass(frozen=True)
class Embedding:
    """A method that embeds spots.

    Attributes
    ----------
    name
        Its name in tables.
    kind
        ``"model"`` for what is evaluated, ``"baseline"`` for a method without a pretrained network,
        ``"control"`` for one without any information.
    of
        Takes slides and, for each, whether it may be fitted to it; returns spots × width for each
        slide, all in one space.
    note
        A remark for the reader of the tables.
    transductive
        Whether it is fitted to every slide that it embeds, in any case.
    """

    name: str
    kind: Kind
    of: "Callable[[Sequence[AnnData], Sequence[bool]], list[NDArray[Any]]]"
    note: str = ""
    transductive: bool = False
