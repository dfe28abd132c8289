"""Explore a slide in the browser, or in a notebook."""

import sys
import webbrowser
from os import PathLike
from typing import TYPE_CHECKING

from sagefm._fetch import DEFAULT

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.explore.server import ExplorerServer
    from sagefm.model import SageFM


def explore(
    slide: "AnnData | str | PathLike[str]",
    model: "SageFM | str | None" = DEFAULT,
    *,
    port: int = 0,
    output: "str | PathLike[str] | None" = None,
    browser: bool | None = None,
    layer: str | None = None,
    slide_key: str | None = None,
) -> "ExplorerServer":
    """Explore a slide: genes, domains, similar spots, selections and what-if, in the browser.

    In a notebook the page is displayed below the cell; in a script it is opened in the browser, and
    the script goes on, but does not end before Ctrl-C or ``.stop()``. The page is served by this
    process to this machine only.

    Parameters
    ----------
    slide
        A slide, or its path.
    model
        A model, its path, or None to draw only what is measured.
    port
        A port of this machine; any free one if 0.
    output
        Where the page exports the slide, if asked to; ``NAME_explored.h5ad`` in the current folder
        if not given.
    browser
        Whether to open the browser; by default in scripts, and not in notebooks.
    layer, slide_key
        As for :func:`sagefm.read`.

    Returns
    -------
    The server: ``.url`` is the address of the page, ``.stop()`` ends it.

    Raises
    ------
    InputError
        bokeh is missing, the slide cannot be drawn, or the port is taken.

    Examples
    --------
    >>> page = sagefm.pl.explore(slide)  # doctest: +SKIP
    >>> page.stop()  # doctest: +SKIP
    """
    from sagefm.explore import prepare_server

    server = prepare_server(
        slide, model, port=port, output=output, layer=layer, slide_key=slide_key
    )
    in_notebook = "ipykernel" in sys.modules
    interactive = in_notebook or hasattr(sys, "ps1")
    server.start(daemon=interactive)
    if browser or (browser is None and not in_notebook):
        webbrowser.open(server.url)
    return server
