"""Where spots, sections and tissue images are drawn."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sagefm._keys import SPATIAL
from sagefm.explore.opening import OpenedSlide
from sagefm.pp.image import Picture, find_picture

_GAP = 0.06
"""Space between sections, as a fraction of the largest."""
_LARGEST = 2400
"""Pixels of an image in the page, in width or height."""
_SAMPLE = 2000
"""Spots whose distance to the nearest is measured."""


@dataclass(frozen=True)
class TissueImage:
    """A tissue image as JPEG, and the rectangle that it fills in the drawing."""

    jpeg: bytes
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class DrawnTissue:
    """The drawing: sections stand side by side."""

    points: NDArray[np.float64]
    pitch: float
    """Distance of neighboring spots, in the section with most."""
    images: tuple[TissueImage, ...]
    titles: tuple[tuple[str, float, float], ...]
    """Name, x and y of each section, where there are several."""

    @classmethod
    def of(cls, opened: OpenedSlide) -> "DrawnTissue":
        """Place the sections of a slide, each with its image."""
        points, codes = opened.points.copy(), opened.sections
        n_sections = int(codes.max()) + 1
        pitch = _pitch(opened.points[codes == np.bincount(codes).argmax()])
        pictures = [_picture_of(opened, codes == code) for code in range(n_sections)]
        boxes = []
        for code in range(n_sections):
            own = opened.points[codes == code]
            low, high = own.min(axis=0) - 2 * pitch, own.max(axis=0) + 2 * pitch
            boxes.append((low, high - low))
        columns = int(np.ceil(np.sqrt(n_sections)))
        cell = np.max([size for _, size in boxes], axis=0) * (1 + _GAP)
        images, titles = [], []
        for code, (picture, (low, size)) in enumerate(zip(pictures, boxes, strict=True)):
            shift = np.zeros(2)
            if n_sections > 1:
                shift = cell * [code % columns, code // columns] - low
                where = low + shift
                titles.append((opened.section_names[code], float(where[0]), float(where[1])))
            points[codes == code] += shift
            if picture is not None:
                images.append(_encoded(picture, low, low + size, shift))
        return cls(points, pitch, tuple(images), tuple(titles))


def _pitch(points: NDArray[np.float64]) -> float:
    if len(points) < 2:
        return 1.0
    some = np.linspace(0, len(points) - 1, min(len(points), _SAMPLE)).astype(np.int64)
    apart = np.asarray(cKDTree(points).query(points[some], 2)[0])[:, 1]
    known = apart[apart > 0]
    return float(np.median(known)) if len(known) else 1.0


def _picture_of(opened: OpenedSlide, rows: NDArray[np.bool_]) -> Picture | None:
    held = opened.slide.uns.get(SPATIAL)
    if held is None:
        return None
    # Without its counts, which a subset would copy.
    bare = AnnData(obs=opened.slide.obs.loc[rows], uns={SPATIAL: held})
    return find_picture(bare, opened.points[rows])


def _encoded(
    picture: Picture, low: NDArray[np.float64], high: NDArray[np.float64], shift: Any
) -> TissueImage:
    """Crop an image to its section and encode it."""
    from PIL import Image

    pixels = picture.pixels
    scale = np.array([pixels.shape[1] / picture.width, pixels.shape[0] / picture.height])
    margin = (high - low) * 0.04
    first = np.floor(np.maximum((low - margin) * scale, 0)).astype(int)
    last = np.ceil(np.minimum((high + margin) * scale, pixels.shape[1::-1])).astype(int)
    pixels = pixels[first[1] : last[1], first[0] : last[0]]
    if pixels.dtype != np.uint8:
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    image.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=88)
    (x, y), (right, bottom) = first / scale + shift, last / scale + shift
    return TissueImage(file.getvalue(), float(x), float(y), float(right - x), float(bottom - y))
