"""Open a slide for drawing: also one that no model can be applied to, with the reason."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, issparse

from sagefm._errors import InputError, logger
from sagefm._keys import PROVENANCE, SPATIAL
from sagefm.pp.counts import counts, find_coordinates, sum_duplicates
from sagefm.pp.labels import text_of
from sagefm.pp.read import open_slide, read
from sagefm.pp.sections import find_slide_key, section_codes


@dataclass(frozen=True)
class OpenedSlide:
    """A slide, and what of it is drawn.

    Attributes
    ----------
    slide
        As it was read.
    name
        Of its file or folder.
    source
        The file or folder; None for an object in memory.
    matrix
        Spots × genes: raw counts, or what ``X`` holds.
    var
        A row per column of `matrix`.
    is_counts
        Whether `matrix` holds raw counts.
    fault
        Why no model can be applied; empty if one can.
    points
        Spots × 2: x and y.
    sections
        For each spot the number of its section.
    section_names
        Of each section.
    slide_key
        As given.
    """

    slide: AnnData
    name: str
    source: Path | None
    matrix: csr_matrix | csc_matrix
    var: pd.DataFrame
    is_counts: bool
    fault: str
    points: NDArray[np.float64]
    sections: NDArray[np.int64]
    section_names: tuple[str, ...]
    slide_key: str | None

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """Name of each column of `matrix`."""
        return tuple(map(str, self.var.index))

    def bare(self) -> AnnData:
        """Make a slide of the counts, places and columns only: what is written there stays there.

        Raises
        ------
        InputError
            There are no raw counts.
        """
        if not self.is_counts:
            raise InputError(self.fault)
        uns = {PROVENANCE: self.slide.uns[PROVENANCE]} if PROVENANCE in self.slide.uns else {}
        return AnnData(
            self.matrix, self.slide.obs.copy(), self.var.copy(), uns, obsm={SPATIAL: self.points}
        )


def open_for_exploring(
    slide: "AnnData | str | os.PathLike[str]",
    *,
    layer: str | None = None,
    slide_key: str | None = None,
) -> OpenedSlide:
    """Open a slide, or take one in memory, and find its counts, places and sections.

    Raises
    ------
    InputError
        It cannot be read, has no spots, no genes or no coordinates, `layer` has no counts, or
        several sections are evident and `slide_key` was not given.
    """
    if isinstance(slide, AnnData):
        return _opened(slide, "slide", None, layer, slide_key, "")
    path = Path(slide)
    try:
        taken, fault = read(path, layer=layer, slide_key=slide_key), ""
        layer = None  # the counts are in X now
    except InputError as error:
        if layer is not None or not path.exists():
            raise
        taken, fault = _drawable(path, error), str(error).removeprefix(f"{path}: ")
    return _opened(taken, _name_of(path), path, layer, slide_key, fault)


def _drawable(path: Path, error: InputError) -> AnnData:
    """Open a slide whose counts or sections are not as a model needs them."""
    try:
        taken = open_slide(path)
        find_coordinates(taken)
    except InputError:
        raise error from None
    if not taken.n_obs or not taken.n_vars:
        raise error
    return taken


def _opened(
    slide: AnnData,
    name: str,
    source: Path | None,
    layer: str | None,
    slide_key: str | None,
    fault: str,
) -> OpenedSlide:
    if not slide.n_obs or not slide.n_vars:
        raise InputError(
            f"{name}: has no {'genes' if slide.n_obs else 'spots'}; choose another slide"
        )
    matrix: Any = None
    var, is_counts = slide.var, False
    try:
        found = sum_duplicates(counts(slide, layer))
        matrix, var, is_counts = found.matrix, found.var, True
    except InputError as error:
        if layer is not None:
            raise
        matrix, fault = _values_of(slide, error), fault or str(error)
    key, codes = find_slide_key(slide, slide_key), section_codes(slide, slide_key)
    points, note = find_coordinates(slide)
    if note:
        logger.warning(note)
    names = [name] if key is None else pd.unique(text_of(slide.obs[key])).tolist()
    return OpenedSlide(
        slide, name, source, matrix, var, is_counts, fault, points, codes, tuple(names), slide_key,
    )  # fmt: skip


def _values_of(slide: AnnData, error: InputError) -> "csr_matrix | csc_matrix":
    """Take what X holds, where that can be drawn."""
    values: Any = slide.X
    try:
        taken: Any = values if issparse(values) else np.asarray(values)
        matrix = csc_matrix(taken).astype(np.float32)
    except (TypeError, ValueError, IndexError):
        raise error from None
    if not matrix.shape[0] or not matrix.shape[1]:
        raise error
    return matrix


def _name_of(path: Path) -> str:
    place = path.resolve()
    place = place.parent if place.name == "outs" else place
    return place.name.removesuffix(".zip").removesuffix(".h5ad").removesuffix(".zarr")
