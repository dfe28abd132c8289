"""The page: one per browser tab, with what that tab shows."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from importlib import resources
from typing import Any, TypeVar

from bokeh.models import CustomJS
from jinja2 import Environment, Template

from sagefm._errors import InputError
from sagefm.explore.coloring import SpotValues
from sagefm.explore.drawing import Drawing
from sagefm.explore.panels.color import ColorPanel
from sagefm.explore.panels.details import DetailsPanel
from sagefm.explore.panels.export import ExportPanel
from sagefm.explore.panels.tissue import TissuePanel
from sagefm.explore.panels.what_if import WhatIfPanel
from sagefm.explore.state import Explorer
from sagefm.explore.widgets import Widgets, text

T = TypeVar("T")
_FILES = resources.files("sagefm.explore")


class Page:
    """One page: its widgets, and what they do."""

    def __init__(self, explorer: Explorer, token: str) -> None:
        self.explorer, self.widgets = explorer, Widgets()
        self.drawing = Drawing(explorer, token)
        self.shown: SpotValues | None = None
        """What the spots are colored by."""
        self.heading = self.widgets.div(name="heading")
        self._status = self.widgets.div(name="status")
        self._running: dict[int, str] = {}
        self._document: Any = None
        self.color_panel = ColorPanel(self)
        self.details = DetailsPanel(self)
        self.what_if = WhatIfPanel(self)
        self._panels = (self.color_panel, self.what_if, TissuePanel(self), ExportPanel(self))

    def build(self, document: Any) -> None:
        """Add everything to a document of Bokeh."""
        self._document = document
        opened = self.explorer.opened
        document.title = f"{opened.name} · sagefm explore"
        document.template = _template()
        document.template_variables.update(
            slide=opened.name, summary=self.explorer.summary,
            style=(_FILES / "page.css").read_text("utf-8"),
        )  # fmt: skip
        roots = [panel.root for panel in self._panels]
        for root in (*roots, self.details.root, self.heading, self._status, self.drawing.plot):
            document.add_root(root)
        ready = "document.body.dataset.ready = 'yes'"
        lost = "document.body.dataset.lost = 'yes'; document.getElementById('lost').hidden = false"
        document.config.update(notify_connection_status=False, reconnect_session=False)
        document.js_on_event("document_ready", CustomJS(code=ready))
        document.js_on_event("connection_lost", CustomJS(code=lost))
        document.on_event("document_ready", self._warm_up)
        self.color_panel.begin()
        self.say("" if not self.explorer.model.fault else self._without_model())

    def _warm_up(self, _: Any) -> None:
        """Arrange the counts, then load the model, once the tissue is on the screen."""
        shared, model = self.explorer.shared, self.explorer.model
        if "by gene" not in shared:
            shared.start("by gene", self.explorer.warm_up)
        if model.fault:
            return
        self.after(
            "model", "loading the model", model.load, lambda _: self._model_ready(),
            self.what_if.turn_off,
        )  # fmt: skip

    def _model_ready(self) -> None:
        self.color_panel.model_ready()
        self.what_if.model_ready()

    def _without_model(self) -> str:
        return f"The model is off: {self.explorer.model.fault}"

    def say(self, line: str, *, error: bool = False) -> None:
        """Show a line at the top of the page; an empty one shows that the page is at rest."""
        style = "status error" if error else "status"
        self._status.text = f'<div class="{style}" title="{text(line)}">{text(line)}</div>'

    def show(self, values: SpotValues) -> None:
        """Color the spots, and say by what."""
        self.shown = values
        self.drawing.color(values)
        self.heading.text = (
            f'<div class="title" title="{text(values.title)}">{text(values.title) or "(no name)"}'
            f'</div><div class="detail">{text(values.detail)}</div>'
        )

    def after(
        self,
        key: Hashable,
        line: str,
        compute: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute in a thread, shared with the other pages, and go on with the result.

        Parameters
        ----------
        line
            What is shown meanwhile.
        then
            Called with the result.
        failed
            Called instead if there is none; the reason is shown.
        """
        future = self.explorer.shared.start(key, compute)
        number = id(object())
        while number in self._running:
            number += 1
        self._running[number] = line
        self._show_running()

        def finished(future: "Future[T]") -> None:
            with suppress(RuntimeError):  # the page was closed
                self._document.add_next_tick_callback(partial(settle, future))

        def settle(future: "Future[T]") -> None:
            self._running.pop(number, None)
            self._show_running()
            if error := future.exception():
                failed()
                self._explain(error)
            else:
                then(future.result())

        future.add_done_callback(finished)

    def _show_running(self) -> None:
        if not self._running:
            self.say("")
            return
        line = text(" · ".join(dict.fromkeys(self._running.values())) + " …")
        self._status.text = f'<div class="status busy" title="{line}">{line}</div>'

    def _explain(self, error: BaseException) -> None:
        known = isinstance(error, InputError)
        self.say(str(error) if known else f"{type(error).__name__}: {error}", error=True)

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Do something at once; if the input does not allow it, say so."""
        try:
            return action()
        except InputError as error:
            self._explain(error)
            return None


def _template() -> Template:
    html = (_FILES / "template.html").read_text("utf-8")
    return Environment(autoescape=True).from_string(html)
