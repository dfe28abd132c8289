"""Slides in memory as a source of training spots."""

import zlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.sections import Section
from sagefm.pp.vocabulary import Vocabulary


class Memory:
    """Prepared pieces of slides (a :class:`~sagefm.pretrain.source.Source`)."""

    def __init__(self, pieces: Iterable[Section], vocabulary: Vocabulary, n_neighbors: int) -> None:
        self._vocabulary = vocabulary
        self._n_neighbors = n_neighbors
        self._regions: dict[str, AlignedSlide] = {}
        rows = {}
        for piece in pieces:
            self._regions[piece.name] = _align(piece, vocabulary, n_neighbors)
            rows[piece.name] = {
                "patient": piece.patient,
                "spots": len(piece.rows),
                "checksum": _checksum(self._regions[piece.name]),
            }
        self._table = pd.DataFrame.from_dict(rows, orient="index")

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes that all slides are aligned to."""
        return self._vocabulary

    @property
    def n_neighbors(self) -> int:
        """Spots in a neighborhood, the center included."""
        return self._n_neighbors

    @property
    def table(self) -> pd.DataFrame:
        """A row per piece, by name: patient, spots."""
        return self._table

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a piece that each gene is detected in."""
        found = self._regions[slide].counts.indices
        return np.bincount(found, minlength=len(self.vocabulary))

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Give spots `start` to `stop` of a piece."""
        whole = self._regions[slide]
        return whole.at(slice(start, stop))


def _checksum(region: AlignedSlide) -> int:
    """Tell a slide from another of its name and size."""
    counts, number = region.counts, 0
    for part in (counts.indptr, counts.indices, counts.data, region.neighbors):
        number = zlib.crc32(np.ascontiguousarray(part).data, number)
    return number


def _align(section: Section, vocabulary: Vocabulary, n_neighbors: int) -> AlignedSlide:
    try:
        return AlignedSlide.of(section.slide[section.rows], vocabulary, n_neighbors)
    except InputError as error:
        raise InputError(f"{section.name}: {error}") from error
