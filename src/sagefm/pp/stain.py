"""Draw an image of simulated tissue that looks like hematoxylin and eosin."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from sagefm._types import Floats
from sagefm.pp.tissue_layout import Layout
from sagefm.pp.visium_array import PITCH_UM, PIXELS_PER_UM, Rng

_LONGEST = 1000
"""Pixels of the longer side."""
_GLASS = np.array([0.965, 0.955, 0.965])
_BEYOND = 1.1
"""Pitches that tissue reaches beyond its outer spots."""
_NUCLEUS = np.array([0.36, 0.24, 0.53])
# Per region: the color between nuclei, nuclei per square pitch, their size in pitches.
_LOOKS = {
    "cortex": [
        ((0.93, 0.78, 0.86), 1.2, 0.075), ((0.90, 0.72, 0.83), 4.0, 0.085),
        ((0.91, 0.74, 0.84), 3.0, 0.095), ((0.89, 0.71, 0.83), 4.5, 0.075),
        ((0.91, 0.73, 0.83), 2.8, 0.105), ((0.90, 0.71, 0.82), 3.4, 0.085),
        ((0.83, 0.58, 0.74), 5.0, 0.060),
    ],
    "breast": [
        ((0.82, 0.60, 0.77), 12.0, 0.105), ((0.88, 0.70, 0.82), 16.0, 0.065),
        ((0.79, 0.60, 0.78), 15.0, 0.090), ((0.95, 0.75, 0.82), 2.4, 0.060),
        ((0.85, 0.73, 0.86), 27.0, 0.065), ((0.86, 0.66, 0.80), 14.0, 0.080),
    ],
}  # fmt: skip


def stain(
    layout: Layout, spots: Floats, middle: Floats, span: Floats, tissue: str, rng: Rng
) -> tuple[NDArray[np.uint8], float]:
    """Draw the tissue.

    Parameters
    ----------
    layout
        Where the regions are.
    spots
        Places of the spots, around which there is tissue, in pitches from its middle.
    middle
        Middle of the tissue, in pitches from the corner of the image.
    span
        Width and height of the image, in pitches.
    tissue
        ``"cortex"`` or ``"breast"``.
    rng
        Of the places of nuclei and the grain.

    Returns
    -------
    Height × width × 3 pixels, and the pixels of the image per pixel of the coordinates.
    """
    scale = _LONGEST / span.max()
    width, height = (int(side) for side in np.ceil(span * scale))
    down, across = np.mgrid[:height, :width]
    places = np.column_stack([across.ravel(), down.ravel()]) / scale - middle
    shares = layout(places)
    looks = _LOOKS[tissue]
    colors = shares @ np.array([color for color, _, _ in looks])
    grain = gaussian_filter(rng.normal(size=(height, width)), (1.2, 3.5))
    colors += 0.022 * (grain / grain.std()).ravel()[:, None] * [1.0, 1.3, 1.0]
    nuclei = _nuclei(layout, looks, middle, span, scale, (height, width), rng).ravel()[:, None]
    colors = colors * (1 - nuclei) + _NUCLEUS * nuclei
    gap = np.asarray(cKDTree(spots).query(places)[0])
    inside = gaussian_filter((gap < _BEYOND).reshape(height, width).astype(float), 1.5).ravel()[
        :, None
    ]
    colors = colors * inside + _GLASS * (1 - inside)
    pixels = np.clip(np.rint(255 * colors), 0, 255).astype(np.uint8)
    return pixels.reshape(height, width, 3), float(scale / (PITCH_UM * PIXELS_PER_UM))


def _nuclei(
    layout: Layout,
    looks: list[tuple[tuple[float, float, float], float, float]],
    middle: Floats,
    span: Floats,
    scale: float,
    shape: tuple[int, int],
    rng: Rng,
) -> Floats:
    """Draw nuclei as round spots whose number and size depend on the region."""
    densest = max(density for _, density, _ in looks)
    places = rng.uniform(0, 1, (int(densest * span.prod()), 2)) * span
    shares = layout(places - middle)
    density = shares @ np.array([density for _, density, _ in looks])
    kept = rng.uniform(0, densest, len(places)) < density
    places, shares = places[kept], shares[kept]
    sizes = scale * (shares @ np.array([size for _, _, size in looks]))
    sizes *= rng.uniform(0.7, 1.3, len(sizes))
    drawn = np.zeros(shape)
    columns, rows = np.minimum((places * scale).astype(np.int64), np.array(shape[::-1]) - 1).T
    for step in np.unique(np.round(np.maximum(sizes, 0.6), 0)):
        chosen = np.round(np.maximum(sizes, 0.6), 0) == step
        layer = np.zeros(shape)
        np.add.at(layer, (rows[chosen], columns[chosen]), 1.0)
        blurred = gaussian_filter(layer, 0.6 * step + 0.3)
        drawn += blurred * 2 * np.pi * (0.6 * step + 0.3) ** 2
    return np.minimum(0.85 * drawn, 0.85)
