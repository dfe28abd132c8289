"""What every embedding looks like to a protocol, trained or training-free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

Kind = Literal["baseline", "model", "control"]


@dataclass(frozen=True)
class Embedding:
    """A way to turn spots into numbers.

    Attributes
    ----------
    name
        What tables call it.
    kind
        ``"baseline"`` needs no pretrained network, ``"model"`` is what is evaluated, ``"control"``
        cannot know anything.
    of
        Takes slides and, for each, whether anything may be learned from it; gives spots × width for
        each slide, all in one space.
    note
        What a reader must know about it.
    transductive
        Whether it learns from every slide that it embeds, whatever it is told.
    """

    name: str
    kind: Kind
    of: "Callable[[Sequence[AnnData], Sequence[bool]], list[NDArray[Any]]]"
    note: str = ""
    transductive: bool = False
