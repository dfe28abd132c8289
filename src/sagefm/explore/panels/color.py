"""Choose what the spots are colored by."""

from typing import TYPE_CHECKING, Any

from bokeh.models import Column

from sagefm._keys import DOMAIN, RARE
from sagefm.explore.coloring import SpotValues
from sagefm.explore.state import NOVELTY
from sagefm.explore.widgets import in_order, short

if TYPE_CHECKING:
    from sagefm.explore.page import Page

_OBS = "obs:"
_MEASURED, _PREDICTED = 0, 1
_COMPUTED = {
    "domains": ("Domains", "finding domains (some 20 s for 4,000 spots)"),
    "novelty": ("Novelty", "comparing with the training spots"),
    "rare": ("Rare score", "scoring rare spots (minutes for 4,000 spots)"),
}
_LIKELY = ("label", "domain", "region", "cluster", "leiden", "annotation", "cell_type")
"""Columns of obs that a page begins with, if there is one."""


class ColorPanel:
    """A search for genes, and a list of everything else."""

    def __init__(self, page: "Page") -> None:
        self._page, explorer = page, page.explorer
        genes = explorer.opened.genes
        self._gene = page.widgets.search("Gene", genes, placeholder="GFAP, CD3E, …", name="gene")
        self._kind = page.widgets.choice(["Measured", "Predicted"], active=_MEASURED, name="kind")
        self._kind.disabled = True
        self._column = page.widgets.select("Or a column", {}, value="", name="column")
        self._quiet = False
        self.refresh()
        self.root = Column(
            self._gene, self._kind, self._column, name="color", sizing_mode="stretch_width",
            spacing=8,
        )  # fmt: skip
        self._gene.on_change("value", lambda attr, old, new: self._on_gene())
        self._kind.on_change("active", lambda attr, old, new: self._on_gene())
        self._column.on_change("value", lambda attr, old, new: self._on_column())

    def begin(self) -> None:
        """Color by a label, if the slide has one, else by the gene with most counts."""
        names = self._page.explorer.obs_names()
        for name in (*_LIKELY, DOMAIN):
            if name in names:
                self._set_column(_OBS + name)
                self._page.show(self._page.explorer.of_obs(name))
                return
        gene = self._page.explorer.most_counted()
        self._set_gene(gene)
        self._page.show(self._page.explorer.measured(gene))

    def refresh(self) -> None:
        """List the columns of obs, with those that were added."""
        explorer = self._page.explorer
        computed_names = {explorer.name_of(key) for key in (DOMAIN, NOVELTY, RARE)}
        hidden = computed_names & set(explorer.columns)
        own = [
            (_OBS + name, short(name, 40)) for name in explorer.obs_names() if name not in hidden
        ]
        computed = [(key, label) for key, (label, _) in _COMPUTED.items()]
        options: dict[str, Any] = {"": [("", "Choose …")], "Compute": computed}
        self._column.options = options | ({"In the table of spots": own} if own else {})

    def model_ready(self) -> None:
        """Offer the genes that only the model has."""
        explorer = self._page.explorer
        self._gene.completions = in_order({*explorer.opened.genes, *explorer.model.genes})
        self._kind.disabled = False

    def _on_gene(self) -> None:
        gene, explorer = self._gene.value, self._page.explorer
        if self._quiet or not gene:
            return
        self._set_column("")
        if explorer.has(gene) and self._kind.active == _MEASURED:
            self._page.say("")
            self._page.show(explorer.measured(gene))
            return
        what = "predicting" if explorer.has(gene) else "imputing"
        self._compute(("predicted", gene), f"{what} {gene}", lambda: explorer.model.predicted(gene))

    def _on_column(self) -> None:
        chosen, explorer = self._column.value, self._page.explorer
        if self._quiet or not chosen:
            return
        self._set_gene("")
        if chosen.startswith(_OBS):
            values = self._page.attempt(lambda: explorer.of_obs(chosen.removeprefix(_OBS)))
            if values is not None:
                self._page.show(values)
            return
        computed = {"domains": explorer.domains, "novelty": explorer.novelty, "rare": explorer.rare}
        self._compute(chosen, _COMPUTED[chosen][1], computed[chosen])

    def _compute(self, key: Any, line: str, compute: Any) -> None:
        """Compute in a thread; show the result if nothing else was chosen meanwhile."""
        asked = self._asked()

        def then(values: SpotValues) -> None:
            if self._asked() == asked:
                self._page.show(values)

        self._page.after(("color", key), line, compute, then)

    def _asked(self) -> tuple[Any, ...]:
        return self._gene.value, self._kind.active, self._column.value

    def clear(self) -> None:
        """Choose nothing: the spots are colored by something else."""
        self._set_gene("")
        self._set_column("")

    def _set_gene(self, gene: str) -> None:
        self._quiet = True
        self._gene.value = gene
        self._quiet = False

    def _set_column(self, value: str) -> None:
        self._quiet = True
        self._column.value = value
        self._quiet = False
