"""What is known of a slide: shared by all pages of a process, computed when it is first needed."""

import threading
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from sagefm._errors import InputError
from sagefm._fetch import DEFAULT
from sagefm._files import require_own
from sagefm._keys import DOMAIN, EMBEDDING, RARE, SPOT_SUFFIX
from sagefm._text import numbered
from sagefm.explore.coloring import SpotValues, values_of
from sagefm.explore.model_state import ModelState
from sagefm.explore.opening import OpenedSlide
from sagefm.explore.shared import SharedResults
from sagefm.explore.tissue import DrawnTissue
from sagefm.pp.neighborhood import nearest
from sagefm.pp.writing import write_slide

if TYPE_CHECKING:
    from sagefm.model import SageFM

NOVELTY = "sagefm_novelty"
SELECTION = "selected"
_NEIGHBORHOOD = 15
_LEAST_SELECTED = 3


class Explorer:
    """A slide, with all that was computed of it.

    Parameters
    ----------
    opened
        The slide.
    model
        A model, its path, or None.
    output
        Where the slide is exported; a name in the current folder if not given.
    device
        As for :meth:`sagefm.SageFM.load`.
    """

    def __init__(
        self,
        opened: OpenedSlide,
        model: "SageFM | str | None" = DEFAULT,
        *,
        output: "str | PathLike[str] | None" = None,
        device: str | None = None,
    ) -> None:
        self.opened, self.shared = opened, SharedResults()
        self.tissue = DrawnTissue.of(opened)
        self.model = ModelState(opened, self.shared, model, device)
        self.output = Path(output) if output else Path(f"{opened.name}_explored.h5ad")
        self.columns: dict[str, pd.Series[Any]] = {}
        """New columns of obs, by name."""
        self._writing, self._saving = threading.Lock(), threading.Lock()
        self._position = {gene: i for i, gene in enumerate(opened.genes)}

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return len(self.tissue.points)

    @cached_property
    def spot_names(self) -> list[str]:
        """Names of the spots."""
        return [str(name) for name in self.opened.slide.obs_names]

    @property
    def summary(self) -> str:
        """One line about the slide."""
        n_sections = len(self.opened.section_names)
        parts = [f"{self.n_spots:,} spots", f"{len(self.opened.genes):,} genes"]
        parts += [numbered(n_sections, "section")] if n_sections > 1 else []
        return " · ".join(parts)

    def obs(self) -> pd.DataFrame:
        """Get the table of spots, with the new columns."""
        table: pd.DataFrame = self.opened.slide.obs.assign(**self.columns)
        return table

    def obs_names(self) -> list[str]:
        """List the columns of the table of spots."""
        names = [str(name) for name in self.opened.slide.obs.columns]
        return [name for name in names if name not in self.columns] + list(self.columns)

    def name_of(self, computed: str) -> str:
        """Name a computed column so that it replaces none of the slide."""
        taken = set(map(str, self.opened.slide.obs.columns))
        return f"{computed}_computed" if computed in taken else computed

    def column(self, name: str) -> "pd.Series[Any]":
        """Get a column of the table of spots.

        Raises
        ------
        InputError
            There is no such column.
        """
        if name in self.columns:
            return self.columns[name]
        names = [str(one) for one in self.opened.slide.obs.columns]
        if name not in names:
            raise InputError(f"obs has no column {name!r}")
        column: pd.Series[Any] = self.opened.slide.obs.iloc[:, names.index(name)]
        return column

    def of_obs(self, name: str) -> SpotValues:
        """Get a column of obs to color by."""
        stored = self.opened.slide.uns.get(f"{name}_colors")
        return values_of(self.column(name), name, "column of obs", stored)

    def most_counted(self) -> str:
        """Choose a gene to begin with: that with most counts."""
        matrix = self.opened.matrix
        total = np.asarray(matrix.sum(axis=0)).ravel()
        return self.opened.genes[int(total.argmax())]

    def warm_up(self) -> None:
        """Arrange the counts by genes, so that colors of genes come at once."""
        self.shared.once("by gene", lambda: csc_matrix(self.opened.matrix))

    def has(self, gene: str) -> bool:
        """Whether the slide measured a gene."""
        return gene in self._position

    def measured(self, gene: str) -> SpotValues:
        """Get the measured values of a gene."""
        if gene not in self._position:
            raise InputError(f"{gene}: is not measured on this slide")
        matrix = self.opened.matrix
        if "by gene" in self.shared:
            matrix = self.shared.once("by gene", lambda: csc_matrix(self.opened.matrix))
        values = matrix[:, [self._position[gene]]].toarray().ravel().astype(np.float64)
        if self.opened.is_counts:
            return SpotValues(gene, "measured, log1p counts", "number", np.log1p(values))
        return SpotValues(gene, "measured, values as stored in X", "number", values)

    def domains(self) -> SpotValues:
        """Find the domains of the tissue."""

        def compute() -> Any:
            from sagefm.tl import domains

            slide = self.opened.bare()
            domains(slide, slide_key=self.opened.slide_key)
            return slide.obs[DOMAIN].copy()

        found = self.columns[self.name_of(DOMAIN)] = self.shared.once("domains", compute)
        return values_of(found, "Domains", "consensus of five views (sagefm.tl.domains)", None)

    def rare(self) -> SpotValues:
        """Score how rare spots are."""

        def compute() -> Any:
            from sagefm.tl import rare

            slide = self.opened.bare()
            rare(slide, slide_key=self.opened.slide_key)
            return slide.obs[RARE].copy()

        found = self.columns[self.name_of(RARE)] = self.shared.once("rare", compute)
        detail = "standard deviations above noise (sagefm.tl.rare, from counts)"
        return values_of(found, "Rare score", detail, None)

    def novelty(self) -> SpotValues:
        """Compute how far spots lie from the training spots of the model."""
        values = self.shared.once("novelty", self.model.novelty)
        self.columns[self.name_of(NOVELTY)] = pd.Series(values, self.opened.slide.obs_names)
        detail = "fraction of training spots that are less unusual"
        return SpotValues("Novelty", detail, "number", values)

    def neighbors(self, row: int) -> NDArray[np.int64]:
        """List the nearest spots of a spot in its section: 14, if there are so many."""
        section = self.opened.sections[row]
        own = np.flatnonzero(self.opened.sections == section)
        apart = np.linalg.norm(self.opened.points[own] - self.opened.points[row], axis=1)
        near = own[np.argsort(apart, kind="stable")[: 4 * _NEIGHBORHOOD]]
        size = min(_NEIGHBORHOOD, len(near))
        if size < 2:
            return np.empty(0, dtype=np.int64)
        at = int(np.flatnonzero(near == row)[0])
        # Among the nearest, by the rule for ties of the neighborhoods of the model.
        return near[nearest(self.opened.points[near], size)[at, 1:]]

    def top_genes(self, rows: tuple[int, ...]) -> pd.DataFrame:
        """Compare a selection with the rest: genes with higher counts there, the best first.

        Raises
        ------
        InputError
            Too few spots are selected, or are left.
        """
        if not _LEAST_SELECTED <= len(rows) <= self.n_spots - _LEAST_SELECTED:
            raise InputError(
                f"select {_LEAST_SELECTED} spots at least, and leave as many, to compare genes"
            )

        def compute() -> pd.DataFrame:
            from sagefm.tl import markers

            slide = self.opened.bare()
            slide.obs[SELECTION] = self._labels(rows)
            slide_key = self.opened.slide_key
            table = markers(slide, SELECTION, n_genes=20, slide_key=slide_key)
            found: pd.DataFrame = table[table["domain"] == SELECTION]
            return found

        return self.shared.once(("genes", rows), compute)

    def _labels(self, rows: tuple[int, ...]) -> "pd.Series[Any]":
        chosen = np.full(self.n_spots, "other", dtype=object)
        chosen[list(rows)] = SELECTION
        labels = pd.Categorical(chosen, ["other", SELECTION])
        return pd.Series(labels, self.opened.slide.obs_names)

    def save_column(self, name: str, rows: tuple[int, ...]) -> str:
        """Keep a selection as a column of obs; get its name.

        Raises
        ------
        InputError
            The name is empty, or that of a column of the slide, of what is computed, or of another
            selection.
        """
        name = " ".join(name.split())
        if not name:
            raise InputError("give the column a name")
        if "/" in name:
            raise InputError("a name of a column cannot have a slash, which .h5ad files forbid")
        if name in (DOMAIN, NOVELTY, RARE):
            raise InputError(f"{name!r} is the name of a computed column; give another name")
        labels = self._labels(rows)
        with self._saving:  # tabs share the columns
            kept = self.columns.get(name)
            if name in map(str, self.opened.slide.obs.columns) or (
                kept is not None and not kept.equals(labels)
            ):
                raise InputError(f"obs has a column {name!r} already; give another name")
            self.columns[name] = labels
        return name

    def exported(self) -> AnnData:
        """Copy the slide with all that was added."""
        slide = self.opened.slide.copy()
        for name, column in dict(self.columns).items():  # a tab may add one meanwhile
            slide.obs[name] = column
        for key, values in self.model.embeddings().items():
            slide.obsm[EMBEDDING if key == "" else EMBEDDING + SPOT_SUFFIX] = values
        return slide

    def export(self, *, overwrite: bool = False) -> Path:
        """Write the slide with all that was added, to a temporary file that is then renamed.

        Raises
        ------
        InputError
            The file exists and `overwrite` is not set, is the slide itself and holds more, or
            cannot be written.
        """
        path = self.output
        with self._writing:
            if path.exists() and not overwrite:
                raise InputError(f"{path} exists already")
            slide = self.exported()
            if self.opened.source is not None and self.opened.is_counts:
                require_own(slide, self.opened.source, path, overwrite=overwrite)
            write_slide(slide, path)
        return path.resolve()

    def table(self, color: SpotValues | None) -> str:
        """Write the table of spots, and what they are colored by, as CSV."""
        obs = self.obs()
        for axis in (1, 0):
            name = "xy"[axis]
            name = f"{name} (obsm spatial)" if name in map(str, obs.columns) else name
            obs.insert(0, name, self.opened.points[:, axis], allow_duplicates=True)
        if color is not None and color.title not in self.obs_names():
            shown = color.text() if color.is_class else color.values
            obs[f"{color.title} ({color.detail})"] = shown
        return str(obs.to_csv(index_label="spot"))
