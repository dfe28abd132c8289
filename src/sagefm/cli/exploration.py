"""The verb explore."""

import os
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._progress import stage
from sagefm.cli._options import Device, Layer, ModelPath, SlideKey, SlidePath, placed


def explore(
    slide: SlidePath,
    model: ModelPath = DEFAULT,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of this machine; any free one if 0.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="H5AD", help="Where the page exports the slide, if asked to."
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open nothing.")
    ] = False,
    layer: Layer = None,
    slide_key: SlideKey = None,
    device: Device = None,
) -> None:
    """Explore a slide in the browser: genes, domains, similar spots, selections, what-if.

    The page is served by this process, to this machine only; Ctrl-C ends it. Nothing is written
    unless the page is asked to export.
    """
    from sagefm.explore import prepare_server

    try:
        server = prepare_server(
            slide, model, port=port, output=output, layer=layer, slide_key=slide_key, device=device
        )
    except InputError as error:
        about_slide = not str(error).startswith(("port ", "the explorer needs"))
        raise InputError(placed(slide, error) if about_slide else str(error)) from error

    def ready() -> None:
        stage("")
        typer.echo(server.url)
        if not no_browser:
            webbrowser.open(server.url)

    with suppress(KeyboardInterrupt):  # the usual end
        server.run(ready)
    if server.explorer.shared.is_computing:
        sys.stdout.flush()
        os._exit(0)  # a library that computes in a thread may abort the process at a usual exit
