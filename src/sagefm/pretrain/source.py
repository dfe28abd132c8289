"""The interface to training slides, which are in memory or in a corpus on disk."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.vocabulary import Alignment, Vocabulary


class Source(Protocol):
    """Slides that can be read a tile at a time."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes that all slides are aligned to."""

    @property
    def n_neighbors(self) -> int:
        """Spots in a neighborhood, the center included."""

    @property
    def table(self) -> pd.DataFrame:
        """A row per slide, by name: patient, organ, spots, ….

        The spots of a slide are ordered along a space-filling curve, so that consecutive spots are
        near each other.
        """

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a slide that each gene of the vocabulary is detected in."""

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` of a slide as centers, together with their neighbors."""


@dataclass(frozen=True)
class Selected:
    """A source aligned to another vocabulary."""

    source: Source
    alignment: Alignment
    """From the vocabulary of the source to the other one."""

    @classmethod
    def of(cls, source: Source, vocabulary: Vocabulary) -> "Selected":
        """Align a source to a vocabulary."""
        return cls(source, vocabulary.align(source.vocabulary.symbols, source.vocabulary.ensembl))

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes that all slides are aligned to."""
        return self.alignment.vocabulary

    @property
    def n_neighbors(self) -> int:
        """As in the source."""
        return self.source.n_neighbors

    @property
    def table(self) -> pd.DataFrame:
        """As in the source."""
        return self.source.table

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a slide that each gene of the vocabulary is detected in."""
        detected = np.zeros(len(self.vocabulary), dtype=np.int64)
        matched = self.alignment.columns >= 0
        np.add.at(detected, self.alignment.columns[matched], self.source.detected(slide)[matched])
        return detected

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Read spots `start` to `stop` of a slide as centers, together with their neighbors."""
        tile = self.source.read(slide, start, stop)
        columns = self.alignment.columns[tile.measured]
        measured = np.zeros(len(self.vocabulary), dtype=bool)
        measured[columns[columns >= 0]] = True
        return replace(tile, counts=self.alignment.select(tile.counts), measured=measured)
