"""Serve the page from this process: to this machine only, and to nobody without the token."""

import asyncio
import errno
import hmac
import html
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.resources import Resources
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.static_handler import StaticHandler
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import ErrorHandler, RequestHandler

from sagefm._errors import InputError
from sagefm.explore.page import Page
from sagefm.explore.state import Explorer

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost"}
"""Host names of requests; others are of pages that have a name resolved to this machine."""
_SCRIPTS = ["bokeh", "bokeh-gl", "bokeh-widgets"]
_WAIT = 5.0
"""Seconds in which a server in a thread starts or stops."""


class GuardedApplication(BokehTornado):
    """The application of Bokeh, where every request needs the token: pages, scripts, sockets."""

    def __init__(self, page: Callable[[Any], None], token: str, patterns: list[Any]) -> None:
        self._token = token
        super().__init__(
            {"/": Application(FunctionHandler(page))},
            extra_patterns=patterns,
            extra_websocket_origins=[f"{name}:*" for name in _NAMES],
            use_index=False,
            log_function=lambda handler: None,
        )

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Find what answers a request; an error if it has no token or names another host."""
        given = request.arguments.get("token", [b""])[-1]
        if not (_host_of(request) in _NAMES and hmac.compare_digest(given, self._token.encode())):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
        return super().find_handler(request, **kwargs)

    def resources(self, absolute_url: Any = None) -> Resources:
        """Name the scripts of the page: those of this server, with the token."""

        def versioned(path: str) -> str:
            return f"{StaticHandler.append_version(path)}&token={self._token}"

        root = absolute_url if isinstance(absolute_url, str) else "/"
        return Resources(
            mode="server", root_url=root, path_versioner=versioned, components=_SCRIPTS
        )


class TissueImageHandler(RequestHandler):
    """Serve the tissue image of a section."""

    def initialize(self, explorer: Explorer) -> None:
        """Take the images from an explorer."""
        self._images = explorer.tissue.images

    def get(self, number: str) -> None:
        """Send one image."""
        if int(number) >= len(self._images):
            self.send_error(404)
            return
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", "private, max-age=86400")
        self.finish(self._images[int(number)].jpeg)


class ExplorerServer:
    """A server of the page of one slide; in a notebook it displays the page.

    Parameters
    ----------
    explorer
        The slide.
    port
        A port of this machine; any free one if 0.

    Attributes
    ----------
    url
        Address of the page, with its token.

    Raises
    ------
    InputError
        The port is taken, or may not be used.
    """

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.explorer, self._token = explorer, secrets.token_urlsafe(24)
        self._socket = _bound(port)
        self.port = self._socket.getsockname()[1]
        self._loop: IOLoop | None = None
        self._server: BaseServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        return f"http://{HOST}:{self.port}/?token={self._token}"

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until interrupted; `ready` is called when the page can be loaded."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = IOLoop.current()

        def page(document: Any) -> None:
            Page(self.explorer, self._token).build(document)

        images = [(r"/tissue/(\d+)", TissueImageHandler, {"explorer": self.explorer})]
        application = GuardedApplication(page, self._token, images)
        http = HTTPServer(application)
        http.add_sockets([self._socket])
        self._server = BaseServer(self._loop, application, http)
        self._server.start()
        self._loop.add_callback(ready)
        try:
            self._loop.start()
        finally:
            self._server.stop(wait=False)
            asyncio.set_event_loop(None)
            self._loop.close(all_fds=True)  # so that open pages know at once

    def start(self, *, daemon: bool = True) -> None:
        """Serve in a thread."""
        started = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(started.set,), daemon=daemon)
        self._thread.start()
        started.wait(_WAIT)

    def stop(self) -> None:
        """Stop serving."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.add_callback(self._loop.stop)
            self._thread.join(_WAIT)
        self._socket.close()

    def __repr__(self) -> str:
        return f"ExplorerServer({self.explorer.opened.name}, {self.url})"

    def _repr_html_(self) -> str:
        address = html.escape(self.url)
        return (
            f'<iframe src="{address}" style="width:100%;height:820px;border:1px solid #d9dde4;'
            f'border-radius:8px"></iframe><p><a href="{address}" target="_blank">'
            "Open in a tab of its own</a></p>"
        )


def _host_of(request: Any) -> str | None:
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:  # such as "[bad"
        return None


def _bound(port: int) -> socket.socket:
    """Bind a port of this machine, for this machine only."""
    bound = socket.socket()
    try:
        if os.name != "nt":  # there it would share the port of another process
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((HOST, port))
        bound.listen(128)
    except (OSError, OverflowError) as error:
        bound.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "is taken by another process" if taken else f"cannot be used ({error})"
        raise InputError(f"port {port}: {why}; choose another --port, or leave it out") from error
    return bound
