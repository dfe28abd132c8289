"""What a map is drawn on: the spots of a section, its tissue image and its scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._uns import own_library
from sagefm.pp.counts import coordinates
from sagefm.pp.image import Picture, find_picture
from sagefm.pp.labels import text_of
from sagefm.pp.neighborhood import nearest
from sagefm.pp.scale import microns_per_unit
from sagefm.pp.sections import find_slide_key, section_codes

_LONGEST = 4.0
"""Ratio of the sides of a map; around spots in a line there is room."""

Crop = tuple[float, float, float, float] | str | None


@dataclass(frozen=True, eq=False)
class Canvas:
    """A section to draw maps of."""

    name: str
    slide: AnnData
    rows: NDArray[np.int64]
    """The rows of the slide that are its spots."""
    points: NDArray[np.float64]
    picture: Picture | None
    pitch: float
    """Distance of neighboring spots, in the units of the coordinates."""
    closest: float
    """What a tenth of the spots have as their distance from the next, over the pitch."""
    microns: float | None
    """Micrometers in a unit of the coordinates, where it is known."""
    window: tuple[float, float, float, float]
    """Left, right, top and bottom of what is drawn."""

    @property
    def aspect(self) -> float:
        """Height over width, within what a page holds."""
        left, right, top, bottom = self.window
        return float(np.clip((bottom - top) / (right - left), 0.3, 2.5))


def canvases(
    slides: AnnData | Sequence[AnnData] | Mapping[str, AnnData],
    slide_key: str | None = None,
    *,
    image: bool = True,
    crop: Crop = None,
) -> list[Canvas]:
    """Find the sections of one slide or of several.

    Raises
    ------
    InputError
        There is none, one has no spots, no coordinates or none in `crop`, or the sections of an
        object are not known.
    """
    drawn = []
    for name, slide in _named(slides).items():
        try:
            drawn += _sections(name, slide, slide_key, image, crop)
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
    return drawn


def _named(
    slides: AnnData | Sequence[AnnData] | Mapping[str, AnnData],
) -> dict[str, AnnData]:
    """Name each slide; a single one needs no name."""
    if isinstance(slides, AnnData):
        return {"": slides}
    listed = list(slides.values() if isinstance(slides, Mapping) else slides)
    if not listed:
        raise InputError("slides: there are none; give one at least")
    if other := [one for one in listed if not isinstance(one, AnnData)]:
        raise InputError(f"{type(other[0]).__name__}: is no slide (AnnData); use sagefm.read")
    if isinstance(slides, Mapping):
        return {str(name): slide for name, slide in slides.items()}
    own = ["".join(own_library(slide)) for slide in slides]
    if "" in own or len(set(own)) < len(own):
        own = [f"slide {i + 1}" for i in range(len(slides))]
    return dict(zip(own, slides, strict=True))


def _sections(
    name: str, slide: AnnData, slide_key: str | None, image: bool, crop: Crop
) -> list[Canvas]:
    if not slide.n_obs:
        raise InputError("the slide has no spots; there is nothing to draw")
    key = find_slide_key(slide, slide_key)
    codes = section_codes(slide, key) if key else np.zeros(slide.n_obs, dtype=np.int64)
    points = coordinates(slide)
    found = []
    for code in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == code)
        section = str(text_of(slide.obs[key]).iloc[rows[0]]) if key and codes.any() else ""
        title = f"{name} {section}".strip()
        found.append(_canvas(title, slide, rows, points[rows], image, crop))
    return found


def _canvas(
    name: str,
    slide: AnnData,
    rows: NDArray[np.int64],
    points: NDArray[np.float64],
    image: bool,
    crop: Crop,
) -> Canvas:
    part = slide[rows] if len(rows) < slide.n_obs else slide
    pitch, closest = _distances(points)
    return Canvas(
        name, slide, rows, points, find_picture(part, points) if image else None, pitch,
        closest, microns_per_unit(part, points, pitch if len(points) > 1 else None),
        _window(part, points, pitch, crop),
    )  # fmt: skip


def _distances(points: NDArray[np.float64]) -> tuple[float, float]:
    """Measure how far a spot is from the next: the median, and the lowest tenth over it."""
    if len(points) < 2:
        return 1.0, 1.0
    pairs = nearest(points, 2)
    gaps = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pitch = float(np.median(gaps)) or 1.0
    return pitch, float(np.percentile(gaps, 10)) / pitch


def _window(
    slide: AnnData, points: NDArray[np.float64], pitch: float, crop: Crop
) -> tuple[float, float, float, float]:
    """Choose what is drawn: all spots, those in the tissue, or a box."""
    if crop is None or isinstance(crop, str):
        if crop not in (None, "tissue"):
            raise InputError(f"crop={crop!r}: give 'tissue' or x0, x1, y0 and y1")
        if crop and "in_tissue" in slide.obs:
            inside = slide.obs["in_tissue"].astype(str).isin(["1", "1.0", "True", "true"])
            points = points[inside.to_numpy()] if inside.any() else points
        low, high = points.min(axis=0) - pitch, points.max(axis=0) + pitch
        thin = np.maximum(np.ptp([low, high], axis=0).max() / _LONGEST - (high - low), 0)
        (left, top), (right, bottom) = low - thin / 2, high + thin / 2
        return float(left), float(right), float(top), float(bottom)
    try:
        x0, x1, y0, y1 = (float(side) for side in crop)
    except (TypeError, ValueError) as error:
        raise InputError(f"crop={crop!r}: give 'tissue' or x0, x1, y0 and y1") from error
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    if not (np.isfinite([left, right, top, bottom]).all() and left < right and top < bottom):
        raise InputError(f"crop={crop!r}: is no box; give x0, x1, y0 and y1")
    if not ((points > [left, top]) & (points < [right, bottom])).all(axis=1).any():
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        raise InputError(
            f"crop={crop!r}: holds no spot; x is from {x0:.0f} to {x1:.0f}, y from {y0:.0f} to "
            f"{y1:.0f}"
        )
    return left, right, top, bottom


def one_canvas(slide: AnnData, what: str = "draw one at a time") -> Canvas:
    """Get the only section of an object, for a plot that holds no more and no image.

    Raises
    ------
    InputError
        The object holds several sections.
    """
    found = canvases(slide, image=False)
    if len(found) > 1:
        raise InputError(
            f"the object has {len(found)} sections ({found[0].name}, {found[1].name}, …); {what}"
        )
    return found[0]
