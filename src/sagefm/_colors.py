"""Colors of classes, the same in every picture and page."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.colors import to_hex, to_rgba_array

# Okabe and Ito (2008), ordered so that successive colors differ clearly; then colors of Paul
# Tol's schemes, for more than eight classes.
_OKABE_ITO = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
]
_MORE = ["#882255", "#999933", "#44AA99", "#332288", "#661100", "#6699CC", "#AA4499", "#DDCC77"]
# The palette of scanpy for more than 16 classes (godsnotwheregodsnot, 2013).
_MANY = [
    "#FFFF00", "#1CE6FF", "#FF34FF", "#FF4A46", "#008941", "#006FA6", "#A30059", "#FFDBE5",
    "#7A4900", "#0000A6", "#63FFAC", "#B79762", "#004D43", "#8FB0FF", "#997D87", "#5A0007",
    "#809693", "#6A3A4C", "#1B4400", "#4FC601", "#3B5DFF", "#4A3B53", "#FF2F80", "#61615A",
    "#BA0900", "#6B7900", "#00C2A0", "#FFAA92", "#FF90C9", "#B903AA", "#D16100", "#DDEFFF",
    "#000035", "#7B4F4B", "#A1C299", "#300018", "#0AA6D8", "#013349", "#00846F", "#372101",
    "#FFB500", "#C2FFED", "#A079BF", "#CC0744", "#C0B9B2", "#C2FF99", "#001E09", "#00489C",
    "#6F0062", "#0CBD66", "#EEC3FF", "#456D75", "#B77B68", "#7A87A1", "#788D66", "#885578",
    "#FAD09F", "#FF8A9A", "#D157A0", "#BEC459", "#456648", "#0086ED", "#886F4C", "#34362D",
    "#B4A8BD", "#00A6AA", "#452C2C", "#636375", "#A3C8C9", "#FF913F", "#938A81", "#575329",
    "#00FECF", "#B05B6F", "#8CD0FF", "#3B9700", "#04F757", "#C8A1A1", "#1E6E00", "#7900D7",
    "#A77500", "#6367A9", "#A05837", "#6B002C", "#772600", "#D790FF", "#9B9700", "#549E79",
    "#FFF69F", "#201625", "#72418F", "#BC23FF", "#99ADC0", "#3A2465", "#922329", "#5B4534",
    "#FDE8DC", "#404E55", "#0089A3", "#CB7E98", "#A4E804", "#324E72",
]  # fmt: skip


def colors(n: int) -> list[str]:
    """Choose colors for n classes; up to eight of them are colorblind-safe."""
    listed = _OKABE_ITO + _MORE
    if n <= len(listed):
        return listed[:n]
    return [_MANY[i % len(_MANY)] for i in range(n)]


def as_colors(held: object, classes: Sequence[str]) -> list[str] | None:
    """Convert colors, or a mapping of classes to colors, to a list; None if they are no colors.

    Names and hexadecimal colors stay as they are; rows of RGB or RGBA, from 0 to 1 or to 255, are
    converted.
    """
    if isinstance(held, Mapping):
        named = {str(name): shade for name, shade in held.items()}
        held = [named.get(name) for name in classes]
    if isinstance(held, str | bytes) or not isinstance(held, Iterable) or np.ndim(held) == 0:  # type: ignore[arg-type]
        return None
    shades = list(held)
    texts = all(isinstance(shade, str) for shade in shades)
    try:
        if not texts:
            rows = np.asarray(shades, dtype=np.float64)
            return [to_hex(row / (255 if rows.max() > 1 else 1), keep_alpha=True) for row in rows]
        to_rgba_array(shades)
    except (TypeError, ValueError):
        return None
    return [str(shade) for shade in shades]
