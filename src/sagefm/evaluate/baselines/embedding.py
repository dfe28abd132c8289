"""The interface of the embeddings that are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

    Embed = Callable[[Sequence[AnnData], Sequence[bool]], list[NDArray[Any]]]

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
    joint
        Whether it removes differences between slides, so that it is of use only where spots of
        several slides are embedded together.
    draws
        What takes the place of `of` for further seeds, if the method is random: other weights.
    untrained
        Of a model: name of the control with the same network and random weights.
    """

    name: str
    kind: Kind
    of: "Embed"
    note: str = ""
    transductive: bool = False
    joint: bool = False
    draws: "tuple[Embed, ...]" = ()
    untrained: str = ""

    def drawn(self) -> "list[Embedding]":
        """List the method with each of its draws: itself alone if it is not random."""
        return [replace(self, of=of, draws=()) for of in (self.of, *self.draws)]


def untrained_of(embeddings: "Sequence[Embedding]") -> dict[str, str]:
    """Map models to the control with the same network and random weights."""
    return {one.name: one.untrained for one in embeddings if one.untrained}
