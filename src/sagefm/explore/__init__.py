"""Explore a slide in the browser: one local process, nothing uploaded, no other address loaded."""

from os import PathLike
from typing import TYPE_CHECKING

from sagefm._extras import require

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.explore.server import ExplorerServer
    from sagefm.model import SageFM

__all__ = ["prepare_server"]


def prepare_server(
    slide: "AnnData | str | PathLike[str]",
    model: "SageFM | str | None" = "default",
    *,
    port: int = 0,
    output: "str | PathLike[str] | None" = None,
    layer: str | None = None,
    slide_key: str | None = None,
    device: str | None = None,
) -> "ExplorerServer":
    """Read a slide and bind a server for its page, without serving yet.

    Parameters
    ----------
    slide
        A slide, or its path, as for :func:`sagefm.read`.
    model
        A model, its path, or None for none. It is loaded when it is first needed.
    port
        A port of this machine; any free one if 0.
    output
        Where the page exports the slide; ``NAME_explored.h5ad`` in the current folder if not given.
    layer, slide_key
        As for :func:`sagefm.read`.
    device
        As for :meth:`sagefm.SageFM.load`.

    Raises
    ------
    InputError
        bokeh is missing, the slide cannot be drawn, or the port is taken.
    """
    require("bokeh", "explore", "the explorer")
    from sagefm.explore.opening import open_for_exploring
    from sagefm.explore.server import ExplorerServer
    from sagefm.explore.state import Explorer

    opened = open_for_exploring(slide, layer=layer, slide_key=slide_key)
    return ExplorerServer(Explorer(opened, model, output=output, device=device), port)
