"""Features of a slide to annotate; of one whose counts are on disk, some spots at a time."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, identity

from sagefm._progress import stage
from sagefm._row_file import RowFile
from sagefm._streaming import embed_streamed
from sagefm._types import Floats, Positions
from sagefm.pp.neighborhood import average
from sagefm.pp.streamed import StreamedSlide
from sagefm.stats.moments import ColumnMoments
from sagefm.tl.annotation._features import (
    N_AVERAGED,
    Features,
    MarkerGenes,
    SpotFeatures,
    normalize,
    section_features,
    standardized,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.model import SageFM

_BLOCK = 1024
"""Spots whose features are in memory together."""


def opened_sections(
    slide: "AnnData", model: "SageFM", features: Features, *, layer: str | None,
    slide_key: str | None,
) -> Iterator[Iterable[SpotFeatures]]:  # fmt: skip
    """Compute the features of each section of a slide, of all its spots or of some at a time."""
    n_neighbors = model.config.n_neighbors
    opened = StreamedSlide.of(slide, model.vocabulary, n_neighbors, slide_key=slide_key)
    if opened is None:
        for section in section_features(
            {"": slide}, model, features, patient_key="", layer=layer, slide_key=slide_key
        ):
            yield [section]
        return
    with tempfile.TemporaryDirectory(prefix="sagefm-") as name:
        folder = Path(name)
        if features == "embedding":
            embedding = embed_streamed(model.network, opened, model.width, folder)[0]
        for number in range(int(opened.sections.max()) + 1):
            rows = np.flatnonzero(opened.sections == number)
            match features:
                case "embedding":
                    yield EmbeddingOnDisk(embedding, rows)
                case "expression":
                    yield ExpressionOnDisk(opened, rows)
                case "combined":
                    yield CombinedOnDisk(opened, rows, model, folder)


@dataclass(frozen=True)
class BlockFeatures(SpotFeatures):
    """Features of some spots of a section, the rest of which is on disk."""

    section: "EmbeddingOnDisk | ExpressionOnDisk"

    @property
    def moments(self) -> ColumnMoments:
        """Of each column of the smoothed expression, or of the embedding, over the section."""
        return self.section.moments


class EmbeddingOnDisk:
    """The embedding of a section, in a file.

    Parameters
    ----------
    embedding
        Of all spots of the slide.
    rows
        Those of the section, in ascending order.
    """

    def __init__(self, embedding: RowFile, rows: Positions) -> None:
        self._embedding, self._rows = embedding, rows

    def __iter__(self) -> Iterator[SpotFeatures]:
        """Go through the spots, some at a time."""
        measured = np.ones(self._embedding.shape[1], dtype=bool)
        for spots, values in self._blocks():
            no_columns = np.zeros((len(spots), 0))
            as_is = csr_matrix(identity(len(spots)))
            yield BlockFeatures(spots, values, measured, as_is, no_columns, no_columns, self)

    @cached_property
    def moments(self) -> ColumnMoments:
        """Of each column over the section."""
        total = ColumnMoments.none(self._embedding.shape[1])
        for _, values in self._blocks():
            total += ColumnMoments.of(values)
        return total

    def _blocks(self) -> Iterator[tuple[Positions, Floats]]:
        for start in range(0, len(self._rows), _BLOCK):
            spots = self._rows[start : start + _BLOCK]
            yield spots, self._embedding.read(spots).astype(np.float64)


class ExpressionOnDisk:
    """The smoothed expression of a section whose counts are on disk.

    Parameters
    ----------
    slide
        The slide.
    rows
        Spots of the section.
    """

    def __init__(self, slide: StreamedSlide, rows: Positions) -> None:
        self._slide, self._rows = slide, rows

    def __iter__(self) -> Iterator[SpotFeatures]:
        """Go through the spots, some at a time."""
        for spots, values, operator in self._blocks("annotating"):
            no_columns = np.zeros((len(spots), 0))
            measured = self._slide.measured
            yield BlockFeatures(spots, values, measured, operator, no_columns, no_columns, self)

    @cached_property
    def moments(self) -> ColumnMoments:
        """Of each gene over the section; all its counts are read for them."""
        total = ColumnMoments.none(len(self._slide.measured))
        for _, values, operator in self._blocks("averaging expression"):
            smoothed = csr_matrix(operator @ values)
            total += ColumnMoments.of(smoothed)
        return total

    def _blocks(self, what: str) -> Iterator[tuple[Positions, csr_matrix, csr_matrix]]:
        """Read the counts a tile at a time, and give some spots of it.

        Yields
        ------
        Spots in ascending order, the normalized expression of these and of their neighbors, and the
        operator that averages it.
        """
        n_done = 0
        for centers in self._slide.tiles(self._rows):
            stage("%s: %s of %s spots", what, f"{n_done:,}", f"{len(self._rows):,}")
            tile, _ = self._slide.tile(centers, np.arange(0))
            for start in range(0, len(centers), _BLOCK):
                block = start + np.argsort(centers[start : start + _BLOCK])
                nearest = tile.neighbors[block, :N_AVERAGED]
                members, place = np.unique(nearest, return_inverse=True)
                operator = average(place.reshape(nearest.shape), n_spots=len(members))
                values = normalize(tile.counts[members])
                yield centers[block], values, operator.astype(np.float64)
            n_done += len(centers)


class CombinedOnDisk(ExpressionOnDisk):
    """Expression, marker scores and predicted marker genes of a section.

    Parameters
    ----------
    slide, rows
        As in :class:`ExpressionOnDisk`.
    model
        Predicts the marker genes.
    folder
        Where these and the scores are kept.
    """

    def __init__(
        self, slide: StreamedSlide, rows: Positions, model: "SageFM", folder: Path
    ) -> None:
        super().__init__(slide, rows)
        self._markers = MarkerGenes.of(model)
        self._model, self._folder = model, folder

    def __iter__(self) -> Iterator[SpotFeatures]:
        """Go through the spots, some at a time."""
        measured = self._slide.measured
        predicted, scores = self._predict(), self._score()
        for spots, values, operator in self._blocks("annotating"):
            yield BlockFeatures(
                spots, values, measured, operator, scores.read(spots),
                predicted.read(spots) * measured[self._markers.genes], self,
            )  # fmt: skip

    def _predict(self) -> "_StandardizedColumns":
        columns = self._columns("predicted", len(self._markers.genes))
        for at, expression in self._markers.predict(self._model, self._slide, self._rows):
            columns.write(self._rows[at], expression)
        return columns

    def _score(self) -> "_StandardizedColumns":
        columns, measured = self._columns("scores", len(self._markers.sets)), self._slide.measured
        moments = self.moments.at(self._markers.genes)
        for spots, values, operator in self._blocks("scoring marker sets"):
            columns.write(spots, self._markers.set_means(values, operator, measured, moments))
        return columns

    def _columns(self, name: str, width: int) -> "_StandardizedColumns":
        return _StandardizedColumns(self._folder / f"{name}.npy", len(self._slide), width)


class _StandardizedColumns:
    """Columns in a file, standardized over the rows that were written, as they are read."""

    def __init__(self, path: Path, n_rows: int, width: int) -> None:
        self._file, self._moments = RowFile(path, n_rows, width), ColumnMoments.none(width)
        self._origin = np.zeros(width)

    def write(self, rows: Positions, values: Floats) -> None:
        """Write some rows, each once."""
        if not self._moments.n:  # deviations from about the mean lose less to single precision
            self._origin = values.mean(axis=0)
        deviations = values - self._origin
        self._file.write(rows, deviations.astype(np.float32))
        self._moments += ColumnMoments.of(deviations)

    def read(self, rows: Positions) -> Floats:
        """Read some rows, in ascending order."""
        return standardized(self._file.read(rows).astype(np.float64), self._moments)
