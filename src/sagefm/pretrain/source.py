"""Where training spots come from: slides in memory, or a corpus on disk, behind one interface."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Alignment, Vocabulary


class Source(Protocol):
    """Slides that can be read a region at a time."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes that all slides are aligned to."""

    @property
    def n_neighbors(self) -> int:
        """Spots in a neighborhood, the center included."""

    @property
    def table(self) -> pd.DataFrame:
        """A row per slide, by name: patient, organ, spots, ….

        The spots of a slide are ordered along a space-filling curve, so that spots that follow each
        other lie near each other.
        """

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a slide that each gene of the vocabulary is detected in."""

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` of a slide, with whoever is their neighbor."""


@dataclass(frozen=True)
class Selected:
    """A source seen through another vocabulary."""

    source: Source
    alignment: Alignment
    """From the vocabulary of the source to the one to see it through."""

    @classmethod
    def of(cls, source: Source, vocabulary: Vocabulary) -> "Selected":
        """Look at `source` through `vocabulary`."""
        own = source.vocabulary
        return cls(source, vocabulary.align(own.symbols, own.ensembl))

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes to see."""
        return self.alignment.vocabulary

    @property
    def n_neighbors(self) -> int:
        """As the source has it."""
        return self.source.n_neighbors

    @property
    def table(self) -> pd.DataFrame:
        """As the source has it."""
        return self.source.table

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a slide that each gene to see is detected in."""
        detected = np.zeros(len(self.vocabulary), dtype=np.int64)
        matched = self.alignment.columns >= 0
        np.add.at(detected, self.alignment.columns[matched], self.source.detected(slide)[matched])
        return detected

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` of a slide."""
        region = self.source.read(slide, start, stop)
        columns = self.alignment.columns[region.measured]
        measured = np.zeros(len(self.vocabulary), dtype=bool)
        measured[columns[columns >= 0]] = True
        return replace(region, counts=self.alignment.select(region.counts), measured=measured)
