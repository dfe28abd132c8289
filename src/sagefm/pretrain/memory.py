"""Slides in memory as a source of training spots."""

import zlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.pp.vocabulary import Vocabulary
from sagefm.prepared import prepare
from sagefm.pretrain.pieces import Piece
from sagefm.pretrain.source import Region


class Memory:
    """Prepared pieces of slides (a :class:`~sagefm.pretrain.source.Source`)."""

    def __init__(self, pieces: Iterable[Piece], vocabulary: Vocabulary, n_neighbors: int) -> None:
        self._vocabulary = vocabulary
        self._n_neighbors = n_neighbors
        self._regions: dict[str, Region] = {}
        rows = {}
        for piece in pieces:
            self._regions[piece.name] = _prepare(piece, vocabulary, n_neighbors)
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
        found = self._regions[slide].expression.indices
        return np.bincount(found, minlength=len(self.vocabulary))

    def read(self, slide: str, start: int, stop: int) -> Region:
        """Give spots `start` to `stop` of a piece."""
        whole = self._regions[slide]
        return replace(whole, neighbors=whole.neighbors[start:stop])


def _checksum(region: Region) -> int:
    """Tell a slide from another of its name and size."""
    expression, number = region.expression, 0
    for part in (expression.indptr, expression.indices, expression.data, region.neighbors):
        number = zlib.crc32(np.ascontiguousarray(part).data, number)
    return number


def _prepare(piece: Piece, vocabulary: Vocabulary, n_neighbors: int) -> Region:
    original = np.sort(piece.rows)
    whole = len(original) == piece.slide.n_obs
    try:
        prepared = prepare(piece.slide if whole else piece.slide[original], vocabulary, n_neighbors)
    except InputError as error:
        raise InputError(f"{piece.name}: {error}") from error
    order = np.searchsorted(original, piece.rows)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    measured = prepared.alignment.measured
    return Region(prepared.expression[order], place[prepared.neighbors[order]], measured)
