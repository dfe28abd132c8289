"""Turn values of spots into colors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from bokeh import palettes
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from sagefm._colors import as_colors, colors

Kind = Literal["number", "class", "change"]

MISSING = "#d3d7de"
"""Color of spots without a value."""
SEQUENTIAL = list(palettes.Cividis256)
DIVERGING = list(palettes.interp_palette(palettes.RdBu11, 255))
"""Blue is less, red is more, white no change."""
_MOST_CLASSES = 40
"""Classes with a legend entry; the largest have one."""
_TOP = 0.995
"""Quantile of the values at which the scale ends, so that one spot does not hide the others."""


@dataclass(frozen=True)
class SpotValues:
    """A value for each spot, and how it is drawn.

    Attributes
    ----------
    title
        What it is.
    detail
        How it was made, and its unit.
    kind
        A number, a class, or a change that is negative or positive.
    values
        A number per spot, or the code of its class; NaN or -1 where it is missing.
    classes, shades
        Name and color of each class.
    limit
        End of the scale, where it is given.
    """

    title: str
    detail: str
    kind: Kind
    values: NDArray[Any]
    classes: tuple[str, ...] = ()
    shades: tuple[str, ...] = ()
    limit: float | None = None
    key: str = field(default="", compare=False)

    @property
    def is_class(self) -> bool:
        """Whether the values are codes of classes."""
        return self.kind == "class"

    @property
    def palette(self) -> list[str]:
        """The colors of the scale."""
        if self.is_class:
            return list(self.shades)
        return DIVERGING if self.kind == "change" else SEQUENTIAL

    def bounds(self) -> tuple[float, float]:
        """Find both ends of the scale."""
        known = self.values[np.isfinite(self.values)]
        if self.kind == "change":
            most = self.limit or float(np.quantile(np.abs(known), _TOP)) if len(known) else 1.0
            most = most if most > 0 else 1.0
            return -most, most
        if not len(known):
            return 0.0, 1.0
        low, high = float(known.min()), float(np.quantile(known, _TOP))
        if high <= low:
            high = float(known.max())
        if high <= low:
            high = low + max(1.0, abs(low) / 2**20)  # of large numbers, 1 is no difference
        return low, high

    def rgba(self) -> NDArray[np.uint32]:
        """Color each spot, as 0xRRGGBBAA."""
        shades = np.array([_packed(shade) for shade in [*self.palette, MISSING]], dtype=np.uint32)
        if self.is_class:
            return np.asarray(shades[self.values])  # -1, a missing class, is the last
        low, high = self.bounds()
        n = len(shades) - 1
        known = np.isfinite(self.values)
        scaled = (np.where(known, self.values, low) - low) * (n / (high - low))
        at = np.clip(scaled.astype(np.int64), 0, n - 1)
        return np.asarray(shades[np.where(known, at, n)])

    def legend(self) -> tuple[list[str], list[str]]:
        """List the classes with a legend entry, and their colors."""
        names, shades = list(self.classes), list(self.shades)
        if len(names) > _MOST_CLASSES:
            sizes = np.bincount(self.values[self.values >= 0], minlength=len(names))
            largest = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_CLASSES])
            names, shades = [names[i] for i in largest], [shades[i] for i in largest]
        return names, shades

    def text(self) -> list[str]:
        """Write the value of each spot."""
        if self.is_class:
            return [self.classes[code] if code >= 0 else "" for code in self.values]
        return [f"{value:.4g}" if np.isfinite(value) else "" for value in self.values]


def values_of(column: "pd.Series[Any]", title: str, detail: str, stored: object) -> SpotValues:
    """Read a column of obs: numbers as numbers, anything else as classes.

    Parameters
    ----------
    stored
        Colors of the classes that the slide has, if any.
    """
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return SpotValues(title, detail, "number", numbers)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy()
        names: Sequence[str] = [str(name) for name in column.cat.categories]
    else:
        texts = column.astype(object).where(column.notna(), None)
        codes, found = pd.factorize(texts.map(lambda x: None if x is None else str(x)), sort=True)
        names = [str(name) for name in found]
    shades = as_colors(stored, names) if stored is not None else None
    if shades is None or len(shades) < len(names):
        shades = colors(len(names))
    shades = [to_hex(shade) for shade in shades[: len(names)]]  # "none" is no color of a page
    return SpotValues(
        title, detail, "class", np.asarray(codes, dtype=np.int64), tuple(names), tuple(shades)
    )


def _packed(shade: str) -> int:
    red, green, blue = (round(255 * part) for part in to_rgb(shade))
    return (red << 24) | (green << 16) | (blue << 8) | 255
