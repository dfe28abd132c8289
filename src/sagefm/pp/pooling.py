"""Pool the counts of cells, or of small bins, in the spots in which they lie."""

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import numbered
from sagefm._types import Bools, Floats
from sagefm._uns import positive
from sagefm.pp.counts import coordinates
from sagefm.pp.scale import microns_per_unit, usual_pitch
from sagefm.pp.sections import find_slide_key, section_codes
from sagefm.pp.tiling import bins_of

_RADIUS = 0.275
"""Radius of a spot of Visium over the distance of its spots: 55 µm wide, 100 µm apart."""
_LEGACY_RADIUS, _LEGACY_UM = 0.25, 200.0
"""The same of the array before Visium: 100 µm wide, 200 µm apart."""
_DENSER = 0.7
"""Cells lie closer together than this fraction of the distance of spots."""
_IN_FRAME = 0.1
"""Fraction of the cells that must lie on the slide, else they have other coordinates."""


def pool(
    slide: AnnData, matrix: csr_matrix, xy: Floats, notes: list[str]
) -> tuple[csr_matrix, Bools]:
    """Sum the counts of cells within each spot.

    Parameters
    ----------
    slide
        A section.
    matrix
        Cells × features.
    xy
        Where the cells are, in the coordinates of the slide.
    notes
        A note for the user is appended to it.

    Returns
    -------
    Spots × features, and whether each spot is measured: whether a cell is nearer than the next
    spot.

    Raises
    ------
    InputError
        The cells lie elsewhere, or as far from each other as spots, or the slide has several
        sections.
    """
    if not _is_one_section(slide):
        raise InputError(
            "no row is named as a spot, and cells can be pooled for one section only; add them to "
            "each section by itself"
        )
    spots = coordinates(slide)
    one = np.zeros(max(len(spots), len(xy)), dtype=np.int64)
    pitch = usual_pitch(spots, one[: len(spots)])
    apart = usual_pitch(xy, one[: len(xy)])
    if not pitch or (apart and apart > _DENSER * pitch):
        raise InputError(
            "no row is named as a spot, and the coordinates are not of cells within spots (they "
            "lie as far from each other as spots); give the table of this slide"
        )
    bins = bins_of(spots, None)
    tree = cKDTree(spots)
    distance, nearest = tree.query(xy)
    near = np.asarray(distance <= pitch)
    if near.mean() < _IN_FRAME:
        raise InputError(
            f"no row is named as a spot, and of {numbered(len(xy), 'cell')} {near.sum():,} lie on "
            "the slide; give obsm['spatial'] in the coordinates of the slide"
        )
    if bins is not None:
        across = np.abs(xy - spots[nearest]).max(axis=1)
        inside, shape = across <= pitch / 2, "square bin"
    else:
        radius = _radius(slide, spots, pitch)
        inside, shape = np.asarray(distance <= radius * pitch), "spot"
    rows, cells = np.asarray(nearest)[inside], np.flatnonzero(inside)
    member = csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, cells)), (len(spots), len(xy))
    )
    measured: Bools = np.asarray(cKDTree(xy).query(spots)[0]) <= pitch
    filled = len(np.unique(rows))
    doubt = "; check that they are in the coordinates of the slide"
    notes.append(
        f"no row is named as a spot, so cells are pooled by their coordinates: {len(rows):,} of "
        f"{numbered(len(xy), 'cell')} lie within a {shape}, in {filled:,} of "
        f"{numbered(len(spots), 'spot')}{doubt if filled < len(spots) / 2 else ''}"
    )
    return csr_matrix(member @ matrix), measured


def _is_one_section(slide: AnnData) -> bool:
    try:
        codes = section_codes(slide, find_slide_key(slide))
    except InputError:  # there are several, and the slide does not say by which column
        return False
    return int(codes.max(initial=0)) == 0


def _radius(slide: AnnData, spots: Floats, pitch: float) -> float:
    """Get the radius of spots as a fraction of their distance."""
    scale = microns_per_unit(slide, spots, pitch)
    um = positive(slide.uns.get(_keys.PITCH)) or (pitch * scale if scale else None)
    is_legacy = um is not None and abs(um - _LEGACY_UM) < 0.25 * _LEGACY_UM
    return _LEGACY_RADIUS if is_legacy else _RADIUS
