"""Order the spots of a slide along a space-filling curve."""

import numpy as np
from numpy.typing import NDArray

_LEVELS = 16


def along_curve(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order points along a Hilbert curve.

    Parameters
    ----------
    points
        Points × 2.

    Returns
    -------
    Row numbers in the order of the curve, ties by row.

    References
    ----------
    Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).
    """
    low = points.min(axis=0)
    span = max(float(np.ptp(points, axis=0).max()), np.finfo(float).tiny)
    x, y = ((points - low) / span * (2**_LEVELS - 1)).astype(np.int64).T
    place = np.zeros(len(points), dtype=np.int64)
    for level in range(_LEVELS - 1, -1, -1):
        right, up = (x >> level) & 1, (y >> level) & 1
        place = (place << 2) | ((3 * right) ^ up)
        # Each quadrant has a rotated copy of the curve, so that its ends are connected.
        flip = (up == 0) & (right == 1)
        size = (1 << level) - 1
        x, y = (
            np.where(flip, size - (x & size), x & size),
            np.where(flip, size - (y & size), y & size),
        )
        x, y = np.where(up == 0, y, x), np.where(up == 0, x, y)
    return np.argsort(place, kind="stable")
