"""What is selected: one spot, or the spots in a lasso."""

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import Column

from sagefm._errors import InputError
from sagefm.explore.widgets import short, table, text

if TYPE_CHECKING:
    import pandas as pd

    from sagefm.explore.page import Page

_NOTHING = (
    "<h2>Nothing selected</h2>"
    '<p class="soft">Click a spot to see its neighborhood, the spots most like it and the genes '
    "behind its embedding.</p>"
    '<p class="soft">Or choose the lasso above the tissue and draw around spots to find the genes '
    "that mark them.</p>"
)
_MOST_ROWS = 14
_WAITING = '<p class="soft">computing …</p>'


class DetailsPanel:
    """Tables about the selection."""

    def __init__(self, page: "Page") -> None:
        self._page, widgets = page, page.widgets
        self._head = widgets.div(_NOTHING, name="selected")
        self._drivers = widgets.div(name="drivers")
        self._similar = widgets.div(name="similar")
        self._genes = widgets.div(name="genes")
        self._name = widgets.entry("Save the selection as a column of obs", name="column_name")
        self._name.value = "selection"
        self._save = widgets.button("Save", name="save")
        self._saved = widgets.div(name="saved")
        self._spot_parts = (self._drivers, self._similar)
        self._lasso_parts = (self._name, self._save, self._saved, self._genes)
        self._rows: tuple[int, ...] = ()
        self._only(())
        self.root = Column(
            self._head, *self._lasso_parts, *self._spot_parts, name="details",
            sizing_mode="stretch_width", spacing=6,
        )  # fmt: skip
        page.drawing.source.selected.on_change("indices", lambda attr, old, new: self._on_select())
        self._save.on_click(self._on_save)

    def _only(self, parts: tuple[Any, ...]) -> None:
        for part in (*self._spot_parts, *self._lasso_parts):
            part.visible = part in parts

    def _on_select(self) -> None:
        rows = tuple(sorted(map(int, self._page.drawing.source.selected.indices)))
        if rows == self._rows:
            return
        self._rows = rows
        for name in self._page.drawing.outlines:
            self._page.drawing.outline(name, [])
        if not rows:
            self._head.text = _NOTHING
            self._only(())
        elif len(rows) == 1:
            self._show_spot(rows[0])
        else:
            self._show_lasso(rows)

    def _show_spot(self, row: int) -> None:
        page, explorer = self._page, self._page.explorer
        near = explorer.neighbors(row)
        page.drawing.outline("spot", [row])
        page.drawing.outline("neighbors", near)
        self._head.text = self._describe(row, near)
        self._only(self._spot_parts)
        if explorer.model.fault:
            self._drivers.text, self._similar.text = "", ""
            return
        title = "<h3>What drives its embedding</h3>"
        self._drivers.text, self._similar.text = title + _WAITING, ""
        page.after(
            ("drivers", row), "attributing the embedding to genes",
            lambda: explorer.model.drivers(row), lambda found: self._show_drivers(row, found),
            lambda: self._drop((row,), self._drivers),
        )  # fmt: skip
        page.after(
            ("similar", row), "finding similar spots",
            lambda: explorer.model.similar(row), lambda found: self._show_similar(row, found),
            lambda: self._drop((row,), self._similar),
        )  # fmt: skip

    def _drop(self, rows: tuple[int, ...], part: Any) -> None:
        """Stop waiting for what could not be computed; the page shows why."""
        if self._rows == rows:
            part.text = ""

    def _describe(self, row: int, near: Any) -> str:
        explorer = self._page.explorer
        values = []
        shown = self._page.shown
        if shown is not None and shown.title not in explorer.obs_names():
            values.append((shown.title, shown.text()[row] or "none"))
        for name in explorer.obs_names()[:_MOST_ROWS]:
            value = explorer.column(name).iloc[row]
            number = isinstance(value, float | np.floating)
            values.append((short(name), f"{value:.5g}" if number else short(str(value), 200)))
        swatch = '<span class="swatch" style="border-color:{}"></span>{}'
        return (
            f'<h2>Spot</h2><div class="name">{text(short(explorer.spot_names[row], 300))}</div>'
            + f'<p class="soft">{swatch.format("#111820", f"{len(near)} neighbors")}</p>'
            + table(values)
        )

    def _show_drivers(self, row: int, found: "pd.DataFrame") -> None:
        if self._rows != (row,):
            return
        most = max(float(found["total"].abs().max()), 1e-12) if len(found) else 1.0
        rows = "".join(
            f'<tr><td title="{text(gene)}">{text(gene)}</td>'
            f'<td><span class="bar{" down" if total < 0 else ""}" '
            f'style="width:{max(2, 100 * abs(total) / most):.0f}%"></span></td>'
            f'<td class="number">{total:+.3f}</td></tr>'
            for gene, total in zip(found["gene"], found["total"], strict=True)
        )
        self._drivers.text = (
            "<h3>What drives its embedding</h3>"
            f"<table>{rows}</table>"
            '<p class="soft">Genes of its neighborhood that move it away from (red) or back to '
            "(blue) the mean of the slide: integrated gradients.</p>"
        )

    def _show_similar(self, row: int, found: tuple[Any, Any]) -> None:
        if self._rows != (row,):
            return
        rows, similarity = found
        self._page.drawing.outline("similar", rows)
        names = self._page.explorer.spot_names
        values = [(short(names[i]), f"{s:.3f}") for i, s in zip(rows[:8], similarity, strict=False)]
        self._similar.text = (
            '<h3><span class="swatch" style="border-color:#cc3d8f"></span>'
            f"{len(rows)} most similar spots elsewhere</h3>"
            + table(values, ("", "cosine"), numbers=1)
        )

    def _show_lasso(self, rows: tuple[int, ...]) -> None:
        page, explorer = self._page, self._page.explorer
        page.drawing.outline("lasso", rows)
        share = len(rows) / explorer.n_spots
        self._head.text = (
            f'<h2>Selection</h2><div class="big">{len(rows):,} spots</div>'
            f'<p class="soft">{share:.1%} of the slide</p>'
        )
        self._saved.text = ""
        self._only(self._lasso_parts)
        title = "<h3>Genes with higher counts than in the rest</h3>"
        self._genes.text = title + _WAITING
        page.after(
            ("genes", rows), "comparing with 99 random motions of the selection",
            lambda: _or_fault(lambda: explorer.top_genes(rows)),
            lambda found: self._show_genes(rows, found),
            lambda: self._drop(rows, self._genes),
        )  # fmt: skip

    def _show_genes(self, rows: tuple[int, ...], found: "pd.DataFrame | InputError") -> None:
        if self._rows != rows:
            return
        title = "<h3>Genes with higher counts than in the rest</h3>"
        if isinstance(found, InputError):
            self._genes.text = f'{title}<p class="soft">{text(found)}</p>'
            return
        values = [
            (gene, f"{fold:+.2f}", "" if np.isnan(q) else f"{q:.2g}")
            for gene, fold, q in found[["gene", "log2_fold", "q"]].to_numpy()
        ]
        n_significant = int((found["q"] <= 0.05).sum())
        verdict = (
            f"{n_significant} of the first {len(found)} with q ≤ 0.05"
            if n_significant
            else "None with q ≤ 0.05: the borders of any selection differ in as much"
        )
        self._genes.text = (
            f"{title}<p>{verdict}</p>"
            f"{table(values, ('Gene', 'log2 fold', 'q'), numbers=2)}"
            '<p class="soft">Counts per 10,000 against the rest; q compares with 99 '
            "random motions of the selection over the tissue (sagefm.tl.markers).</p>"
        )

    def _on_save(self) -> None:
        page, rows = self._page, self._rows
        name = page.attempt(lambda: page.explorer.save_column(self._name.value, rows))
        if name is not None:
            page.color_panel.refresh()
            place = f"obs[{text(repr(name))}]"
            self._saved.text = f'<p class="soft">Saved as {place}; export to keep it.</p>'


def _or_fault(compute: Any) -> Any:
    try:
        return compute()
    except InputError as error:
        return error
