"""The colors that values have: the range of numbers, and the colors of categories."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from sagefm._colors import as_colors, colors
from sagefm._errors import InputError, logger
from sagefm._text import few
from sagefm.pl._style import GRAY

if TYPE_CHECKING:
    from anndata import AnnData

    from sagefm.pl._canvas import Canvas

NOT_LABELED, OTHER = "not labeled", "other"
Bound = float | str | None
"""An end of a color scale: a number, a percentile such as ``"p99"``, or None to choose it."""
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")


@dataclass(frozen=True, eq=False)
class Numbers:
    """Colors of numbers; panels with the same object share them, and a color bar."""

    low: float
    high: float
    cmap: str = "cividis"
    label: str = ""
    beyond: str = "neither"
    """Which ends some values lie beyond, as for ``extend`` of a color bar."""

    @property
    def colormap(self) -> Colormap:
        return mpl.colormaps[self.cmap].with_extremes(bad=GRAY)


@dataclass(frozen=True, eq=False)
class Classes:
    """Colors of categories, in the order of the legend."""

    shades: dict[str, str]
    label: str = ""

    def of(self, spots: "pd.Series[Any]") -> list[str]:
        """Get the color of each spot."""
        missing = self.shades.get(NOT_LABELED, GRAY)
        by_code = [self.shades.get(str(name), GRAY) for name in spots.cat.categories]
        return [by_code[code] if code >= 0 else missing for code in spots.cat.codes]


def numbers(
    spots: "Sequence[pd.Series[Any]]",
    *,
    low: Bound = None,
    high: Bound = None,
    center: float | None = None,
    cmap: str = "cividis",
    label: str = "",
) -> Numbers:
    """Choose the range of the colors of values, the same for all sections.

    Parameters
    ----------
    low, high
        If `low` or `high` is not given, the 1st or the 99th percentile.
    center
        Value that lies in the middle of the range.

    Raises
    ------
    InputError
        `low` or `high` is neither a number nor a percentile, or `cmap` is not known.
    """
    if cmap not in mpl.colormaps:
        raise InputError(f"cmap={cmap!r}: matplotlib has no such colormap, but cividis, viridis, …")
    known = np.concatenate([one.to_numpy(dtype=np.float64, na_value=np.nan) for one in spots])
    known = known[np.isfinite(known)]
    least, most = (
        _end(name, own if own is not None else usual, known)
        for name, own, usual in (("vmin", low, "p1"), ("vmax", high, "p99"))
    )
    if most <= least and known.size:  # most values are the same
        least = float(known.min()) if low is None else least
        most = float(known.max()) if high is None else most
    if center is not None:
        half = max(abs(least - center), abs(most - center)) or 1.0
        least, most = center - half, center + half
    if most < least:
        raise InputError(f"vmin={least:.4g} is above vmax={most:.4g}; give them in order")
    below, above = (known.min() < least, known.max() > most) if known.size else (False, False)
    beyond = ("both" if above else "min") if below else ("max" if above else "neither")
    return Numbers(least, most if most > least else least + 1, cmap, label, beyond)


def _end(name: str, given: float | str, known: NDArray[np.float64]) -> float:
    if isinstance(given, str):
        match = _PERCENTILE.fullmatch(given)
        if match is None or float(match[1]) > 100:
            raise InputError(f"{name}={given!r}: give a number, or a percentile such as 'p99'")
        return float(np.percentile(known, float(match[1]))) if known.size else 0.0
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{name}={given!r}: give a number, or a percentile such as 'p99'")
    return number


def classes(
    drawn: "Sequence[Canvas]",
    name: str,
    spots: "Sequence[pd.Series[Any]]",
    palette: Sequence[str] | None,
    groups: str | Sequence[str] | None,
) -> Classes:
    """Choose a color for each category of all sections, and keep new colors in a single slide.

    Raises
    ------
    InputError
        The palette has too few colors or what is no color, or a group is no category.
    """
    names = list(dict.fromkeys(str(c) for one in spots for c in one.cat.categories))
    slides = list({id(canvas.slide): canvas.slide for canvas in drawn}.values())
    if palette is not None:
        shades = _of_palette(palette, names, name)
    elif len(slides) == 1:
        shades = _kept(slides[0], name, names)
    else:
        shades = _kept_by_all(slides, name, names) or dict(
            zip(names, colors(len(names)), strict=True)
        )
    missing = any(one.isna().any() for one in spots)
    if groups is not None:
        chosen = [groups] if isinstance(groups, str) else [str(group) for group in groups]
        if unknown := [group for group in chosen if group not in names]:
            raise InputError(f"groups: {unknown[0]!r} is no category of {name!r}: {few(names, 12)}")
        rest = {OTHER: GRAY} if missing or len(set(chosen)) < len(names) else {}
        return Classes({group: shades[group] for group in chosen} | rest)
    used = {
        str(c) for one in spots for c in one.cat.categories[np.unique(one.cat.codes[one.notna()])]
    }
    shades = {name: shade for name, shade in shades.items() if name in used}
    return Classes(shades | ({NOT_LABELED: GRAY} if missing else {}))


def _of_palette(palette: Sequence[str], names: list[str], name: str) -> dict[str, str]:
    if len(palette) < len(names):
        raise InputError(
            f"the palette has {len(palette)} colors for the {len(names)} categories of "
            f"{name!r}; give one for each"
        )
    if (chosen := as_colors(palette, names)) is None:
        raise InputError(f"the palette ({few(palette)}) holds what is no color of matplotlib")
    return dict(zip(names, chosen, strict=False))


def _kept(slide: "AnnData", name: str, names: list[str]) -> dict[str, str]:
    """Get the colors that a slide keeps; new ones are kept, unless it is a view."""
    key = f"{name}_colors"
    kept = slide.uns.get(key)
    chosen = as_colors(kept, names)
    if chosen is None or len(chosen) != len(names):
        if kept is not None:
            logger.warning(
                "uns[%r] does not hold a color for each of the %d categories of %r: new colors are "
                "chosen", key, len(names), name,
            )  # fmt: skip
        chosen = colors(len(names))
        if not slide.is_view:
            slide.uns[key] = chosen
    return dict(zip(names, chosen, strict=True))


def _kept_by_all(slides: "Sequence[AnnData]", name: str, names: list[str]) -> dict[str, str] | None:
    """Get the colors that all slides keep, where none contradicts another."""
    shades: dict[str, str] = {}
    for slide in slides:
        own = (
            [str(c) for c in slide.obs[name].astype("category").cat.categories]
            if name in slide.obs
            else []
        )
        chosen = as_colors(slide.uns.get(f"{name}_colors"), own)
        if not own or chosen is None or len(chosen) != len(own):
            return None
        for category, shade in zip(own, chosen, strict=True):
            if shades.setdefault(category, shade) != shade:
                return None
    distinct = len({shades.get(one) for one in names}) == len(names)
    return {one: shades[one] for one in names} if distinct and set(names) <= set(shades) else None
