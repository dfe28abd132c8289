"""Take results away: a table, the slide with its new columns, a picture."""

from typing import TYPE_CHECKING

from bokeh.models import Column, ColumnDataSource, CustomJS, Row

from sagefm.explore.widgets import text

if TYPE_CHECKING:
    from sagefm.explore.page import Page

_DOWNLOAD = """
    const [text, name] = [cb_obj.data.text[0], cb_obj.data.name[0]];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
"""


class ExportPanel:
    """Buttons for each format."""

    def __init__(self, page: "Page") -> None:
        self._page, self._asked = page, False
        self._name = page.explorer.opened.name
        self._slide = page.widgets.button("Slide (.h5ad)", name="h5ad")
        self._table = page.widgets.button("Table (.csv)", name="csv")
        self._note = page.widgets.div(
            '<span class="soft">A picture: the download icon above the tissue.</span>',
            name="exported",
        )
        self._csv = ColumnDataSource({"text": [""], "name": [""]})
        self._csv.js_on_change("data", CustomJS(code=_DOWNLOAD))
        self._slide.on_click(self._on_slide)
        self._table.on_click(self._on_table)
        # The source travels with the panel.
        self._table.tags = [self._csv]
        self.root = Column(
            Row(self._table, self._slide, sizing_mode="stretch_width", spacing=8), self._note,
            name="export", sizing_mode="stretch_width", spacing=8,
        )  # fmt: skip

    def _on_table(self) -> None:
        page = self._page

        def download(table: str) -> None:
            self._csv.data = {"text": [table], "name": [f"{self._name}_spots.csv"]}

        shown = page.shown
        key = ("csv", id(self))
        page.after(key, "writing the table", lambda: page.explorer.table(shown), download)

    def _on_slide(self) -> None:
        page, path = self._page, self._page.explorer.output
        if path.exists() and not self._asked:
            self._asked = True
            self._slide.label = "Replace the file"
            self._note.text = f"{text(path)} exists already. Click again to replace it."
            return
        overwrite, self._asked = self._asked, False
        self._slide.label = "Slide (.h5ad)"
        page.after(
            ("export", id(self)), f"writing {path}",
            lambda: page.explorer.export(overwrite=overwrite),
            lambda written: setattr(self._note, "text", f"Written: {text(written)}"),
        )  # fmt: skip
