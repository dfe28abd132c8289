"""Find the tissue image of a slide, whatever form it is stored in."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sagefm._errors import logger
from sagefm._keys import SPATIAL
from sagefm._text import few
from sagefm._uns import libraries, own_library, scale_factor, table

if TYPE_CHECKING:
    from anndata import AnnData

_LARGEST = 1e7
"""Pixels of the largest full-resolution image, in width or height."""


class Picture(NamedTuple):
    """A tissue image, and its size in pixels of the full resolution."""

    pixels: NDArray[Any]
    width: float
    height: float


def find_picture(slide: "AnnData", points: NDArray[np.float64]) -> Picture | None:
    """Find the image with the highest resolution that lies under the spots of a slide.

    If there are images but none that can be drawn, the reason is logged.
    """
    own = own_library(slide)
    several = [name for name, held in libraries(slide).items() if table(held.get("images"))]
    if not own and several:
        logger.warning(
            "no tissue image is drawn: uns['spatial'] has those of %s, and no column of obs says "
            "which is that of this slide",
            few(several),
        )
    faults = []
    for library in own.values():
        for name, fault, picture in _pictures(library):
            if picture is not None and not _lies_under(picture, points):
                fault = "it does not lie under the spots"
            elif picture is not None:
                return picture
            faults.append(f"{name}: {fault}")
    if faults:
        logger.warning("no tissue image is drawn (%s)", "; ".join(faults))
    return None


def image_of(slide: "AnnData", points: NDArray[np.float64]) -> dict[str, Any]:
    """Select the part of ``uns`` that is needed to draw the tissue image; log as find_picture."""
    return {SPATIAL: own_library(slide)} if find_picture(slide, points) else {}


def _pictures(library: Mapping[str, Any]) -> Iterator[tuple[str, str, Picture | None]]:
    """Iterate over the images of a library, or what is wrong with them."""
    images = table(library.get("images"))
    names = [name for name in ("hires", "lowres") if images.get(name) is not None]
    names += [name for name in images if name not in ("hires", "lowres")]
    for name in names:
        factor = f"tissue_{name}_scalef"
        scale = scale_factor(library, factor)
        pixels = _pixels(images[name])
        if pixels is None:
            yield name, "it is no gray or color image", None
        elif scale is None or max(pixels.shape[:2]) / _LARGEST > scale:
            yield name, f"its scale factor {factor} is missing or no positive number", None
        else:
            height, width = pixels.shape[:2]
            yield name, "", Picture(pixels, width / scale, height / scale)


def _lies_under(picture: Picture, points: NDArray[np.float64]) -> bool:
    inside = (points >= 0) & (points <= [picture.width, picture.height])
    return bool(inside.all(axis=1).any())


def _pixels(image: object) -> NDArray[Any] | None:
    """Convert an image to color pixels: 8-bit or from 0 to 1; None if it is no such image."""
    try:
        pixels = np.asarray(image)
    except (TypeError, ValueError, RuntimeError):
        return None
    if pixels.dtype.kind not in "buif" or not pixels.size:
        return None
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels.astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        return None
    if not known.all():
        values = np.where(known, values, values[known].max())
    return _from_0_to_1(values, whole=pixels.dtype.kind in "ui")


def _from_0_to_1(values: NDArray[np.float64], *, whole: bool) -> NDArray[np.float64]:
    """Scale by the range that the values have: 1, 255 or, of more bits, the largest value."""
    most = float(values.max())
    top = 1.0 if most <= 1 and not whole else 255.0 if most <= 255 else most
    return np.clip(values / top, 0, 1)
