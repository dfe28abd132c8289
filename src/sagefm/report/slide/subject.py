"""The slide that a report is about, and what its sections share."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._progress import stage
from sagefm.pp.counts import coordinates
from sagefm.pp.sections import section_codes
from sagefm.report.drawing import one_section

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM
    from sagefm.report.judge import Quality

Section = dict[str, Any]
"""What the template needs; ``why`` alone, where there is nothing to show."""


@dataclass
class Subject:
    """A slide, the model, and how they are looked at. Results are written to the slide."""

    slide: "AnnData"
    name: str
    model: "SageFM | None"
    n_domains: int | None
    seed: int
    layer: str | None
    slide_key: str | None
    no_model: str = ""
    """Why there is no model, or why it does not go with the slide."""
    quality: "Quality | None" = None
    groups: list[str] = field(default_factory=list)
    """Groups of marker sets; those of the organ if none are given."""
    why_groups: str = "as requested"
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def how(self) -> dict[str, Any]:
        """Arguments of all functions."""
        return {"layer": self.layer, "slide_key": self.slide_key}

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Number of the section of each spot."""
        return section_codes(self.slide, self.slide_key)

    @property
    def n_sections(self) -> int:
        """Number of sections."""
        return int(self.codes.max()) + 1

    @property
    def which(self) -> str:
        """Say which section a map shows."""
        return f" The first of {self.n_sections} sections is drawn." if self.n_sections > 1 else ""

    @property
    def points(self) -> NDArray[np.float64]:
        """Coordinates of the section that is drawn."""
        return np.asarray(coordinates(self.slide)[self.codes == 0])

    def drawn(self, columns: Mapping[str, Any]) -> "AnnData":
        """Keep some columns of the section that is drawn; values are of all spots."""
        chosen = self.codes == 0
        return one_section(self.slide, chosen, {k: v[chosen] for k, v in columns.items()})

    def attempt(self, title: str, make: Callable[["Subject"], Section]) -> Section:
        """Make a section of the page; where it cannot be made, keep the reason."""
        stage("report of %s: %s", self.name, title)
        with self._timed(title):
            try:
                return make(self)
            except InputError as error:
                return {"why": sentence(str(error))}

    def judge(self, make: Callable[["Subject"], Section]) -> Section:
        """Make the section on quality, without which there is no page."""
        stage("report of %s: quality", self.name)
        with self._timed("quality"):
            return make(self)

    @contextmanager
    def _timed(self, title: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = time.monotonic() - start


def sentence(text: str) -> str:
    """Write a message as a sentence."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
