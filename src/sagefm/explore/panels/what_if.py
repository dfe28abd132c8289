"""Change a gene around every spot with a slider, and see another one respond."""

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import Column

from sagefm.explore.coloring import SpotValues
from sagefm.explore.widgets import in_order, text

if TYPE_CHECKING:
    from sagefm.explore.page import Page
    from sagefm.tl.perturbation import BesideMatched

_ENDS = (
    '<div class="ends"><span>knocked out</span><span>unchanged</span>'
    "<span>highest seen</span></div>"
)


class WhatIfPanel:
    """Two genes and a slider; every move is computed exactly, the newest one first."""

    def __init__(self, page: "Page") -> None:
        self._page, widgets = page, page.widgets
        self._source = widgets.search("Change this gene in the 14 neighbors", [], name="changed")
        self._target = widgets.search("Predict this gene in each spot", [], name="target")
        self._amount = widgets.slider(
            "Amount", -1.0, 1.0, 0.0, name="amount", show_value=False, step=0.02
        )
        self._ends = widgets.div(_ENDS)
        self._result = widgets.div(
            '<span class="soft">The model is loading.</span>', name="response"
        )
        if page.explorer.model.fault:
            self.turn_off()
        self._fields = (self._source, self._target, self._amount)
        for field in self._fields:
            field.disabled = True
            field.on_change("value", lambda attr, old, new: self._ask())
        self._busy, self._limit = False, 0.0
        self._pair = ("", "")
        self._tests: dict[tuple[str, str], BesideMatched] = {}
        self.root = Column(
            self._source, self._target, self._amount, self._ends, self._result, name="what_if",
            sizing_mode="stretch_width", spacing=8,
        )  # fmt: skip

    def turn_off(self) -> None:
        """Say why there is no what-if."""
        fault = self._page.explorer.model.fault or "the model cannot be used"
        self._result.text = f'<span class="soft">Off: {text(fault)}</span>'

    def model_ready(self) -> None:
        """Offer the genes of the model, and prepare the slide for questions."""
        model, page = self._page.explorer.model, self._page
        page.after("what if", "preparing what-if", model.what_if, self._ready, self.turn_off)

    def _ready(self, what_if: Any) -> None:
        for field in self._fields[:2]:
            field.completions = in_order(what_if.genes)
        for field in self._fields:
            field.disabled = False
        self._result.text = '<span class="soft">Choose two genes, then move the slider.</span>'

    def _ask(self) -> None:
        """Compute the newest question, unless one is being computed."""
        pair, amount = (self._source.value, self._target.value), self._amount.value
        if self._busy or not all(pair):
            return
        if pair[0] == pair[1]:
            self._result.text = '<span class="soft">Choose two different genes.</span>'
            return
        if pair != self._pair:
            self._pair, self._limit = pair, 0.0
            if not amount:
                self._result.text = '<span class="soft">Now move the slider.</span>'
        model, question = self._page.explorer.model, (*pair, amount)
        self._busy = True

        def then(change: Any) -> None:
            self._busy = False
            self._show(question, change)
            if question != (self._source.value, self._target.value, self._amount.value):
                self._ask()
            else:
                self._compare(*question)

        self._page.after(
            ("respond", *question), "predicting", lambda: model.respond(*question), then,
            failed=lambda: setattr(self, "_busy", False),
        )  # fmt: skip

    def _show(self, question: tuple[str, str, float], change: Any) -> None:
        gene, target, amount = question
        self._limit = max(self._limit, float(np.quantile(np.abs(change), 0.995)), 1e-6)
        what = "knocked out" if amount <= -1 else f"{'lowered' if amount < 0 else 'raised'}"
        self._page.color_panel.clear()
        self._page.show(
            SpotValues(
                f"{target} if {gene} is {what}" if amount else f"{target}, {gene} unchanged",
                "predicted change, log1p counts; exact, nothing held", "change",
                change.astype(np.float64), limit=self._limit,
            )
        )  # fmt: skip
        self._describe(question, float(np.mean(change)))

    def _compare(self, gene: str, target: str, amount: float) -> None:
        """Test the pair once, while the slider rests: a test takes the time of many moves."""
        if not amount or (gene, target) in self._tests:
            return
        model, question = self._page.explorer.model, (gene, target, amount)
        self._page.after(
            ("compare", gene, target), f"comparing {gene} with matched genes",
            lambda: model.compare(gene, target), lambda found: self._tested(question, found),
        )  # fmt: skip

    def _tested(self, question: tuple[str, str, float], found: "BesideMatched") -> None:
        self._tests[question[:2]] = found
        shown = self._page.shown
        if question[:2] == self._pair and shown is not None and shown.kind == "change":
            self._describe((*question[:2], self._amount.value), float(np.mean(shown.values)))

    def _describe(self, question: tuple[str, str, float], mean: float) -> None:
        gene, target, _ = question
        lines = [
            f'<div class="big">{mean:+.3f}</div>'
            f'<div class="soft">mean change of {text(target)}, log1p counts</div>'
        ]
        found = self._tests.get((gene, target))
        if found is None:
            lines.append('<div class="verdict">comparing with matched genes …</div>')
        elif np.isnan(found.p):
            lines.append('<div class="verdict">cannot be compared with matched genes</div>')
        elif found.beyond:
            lines.append(
                f'<div class="verdict yes">beyond {found.n} matched genes (p = {found.p:.2g})</div>'
            )
        else:
            lines.append(f'<div class="verdict">not beyond matched genes (p = {found.p:.2g})</div>')
        lines.append('<p class="soft">An association that the model has learned, no mechanism.</p>')
        self._result.text = "".join(lines)
