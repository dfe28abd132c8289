"""Slides in memory as a source of training spots."""

import zlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm.pp.aligned import AlignedSlide
from sagefm.pp.sections import Section
from sagefm.pp.slide_record import STATED, described
from sagefm.pp.vocabulary import Vocabulary


class Memory:
    """Aligned sections (a :class:`~sagefm.pretrain.source.Source`).

    Attributes
    ----------
    vocabulary
        The genes that all slides are aligned to.
    n_neighbors
        Spots in a neighborhood, the center included.
    table
        A row per section, by name: patient, spots, checksum; and what is known of organ, disease,
        technology, source, accession, license, array and pitch_um.
    """

    def __init__(
        self, sections: Iterable[Section], vocabulary: Vocabulary, n_neighbors: int
    ) -> None:
        self.vocabulary, self.n_neighbors = vocabulary, n_neighbors
        self._slides: dict[str, AlignedSlide] = {}
        rows = {}
        for section in sections:
            try:
                slide = AlignedSlide.of(section.slide[section.rows], vocabulary, n_neighbors)
            except InputError as error:
                raise InputError(f"{section.name}: {error}") from error
            self._slides[section.name] = slide
            rows[section.name] = {
                "patient": section.patient,
                "spots": len(section.rows),
                "checksum": _checksum(slide),
                **described(section.slide, section.rows),
            }
        table = pd.DataFrame.from_dict(rows, orient="index")
        texts = [name for name in (*STATED, "array") if name in table]
        self.table = table.fillna(dict.fromkeys(texts, ""))

    def detected(self, slide: str) -> NDArray[np.int64]:
        """Count the spots of a section that each gene is detected in."""
        return np.bincount(self._slides[slide].counts.indices, minlength=len(self.vocabulary))

    def read(self, slide: str, start: int, stop: int) -> AlignedSlide:
        """Get spots `start` to `stop` of a section as centers, together with their neighbors."""
        whole = self._slides[slide]
        _ = whole.log1p  # computed once, all tiles share it
        return whole.at(slice(start, stop))


def _checksum(slide: AlignedSlide) -> int:
    """Distinguish a slide from another one of its name and size."""
    counts, number = slide.counts, 0
    for part in (counts.indptr, counts.indices, counts.data, slide.neighbors):
        number = zlib.crc32(np.ascontiguousarray(part).data, number)
    return number
