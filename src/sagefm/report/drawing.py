"""Draw spots and bars for the pages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sagefm._colors import colors
from sagefm._keys import PROVENANCE, SPATIAL
from sagefm._uns import own_library
from sagefm.pl import journal, spatial
from sagefm.pp.counts import coordinates
from sagefm.pp.image import find_picture, image_of
from sagefm.pp.neighborhood import nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.6
"""Inches of a figure that fills the column of a page."""
_REACH = 1.3
"""Spots that touch lie within this many pitches."""
_LEAST_PART = 0.04
"""Fraction of the spots of a domain from which a separate part of it is labeled."""
_HALO = [patheffects.withStroke(linewidth=2.2, foreground="white")]


def one_section(slide: AnnData, spots: NDArray[np.bool_], columns: Mapping[str, Any]) -> AnnData:
    """Keep what is needed to draw some columns of one section, with its tissue image."""
    part = AnnData(
        obs=pd.DataFrame({"section": "first"}, index=slide.obs_names[spots]),
        obsm={SPATIAL: coordinates(slide)[spots]},
        uns={SPATIAL: own_library(slide[spots])},
    )
    part.uns = {
        **image_of(part, part.obsm[SPATIAL]),
        PROVENANCE: {"read": {"slide_key": "section"}},
    }
    for name, values in columns.items():
        part.obs[name] = values
    return part


def grid(points: NDArray[np.float64], n: int, across: int) -> "tuple[Figure, list[Axes]]":
    """Create Axes for maps: as many as the width of a page has room for."""
    wide, high = np.ptp(points, axis=0)
    side = _WIDTH / across
    height = (side - 0.5) * min(max(high / max(wide, 1e-9), 0.4), 1.6) + 0.35
    down = -(-n // across)
    figure, made = plt.subplots(
        down, across, figsize=(_WIDTH, height * down), squeeze=False, layout="compressed"
    )
    for spare in made.flat[n:]:
        spare.set_axis_off()
    return figure, list(made.flat[:n])


def number_map(drawn: AnnData, column: str, title: str, unit: str, ax: Axes) -> None:
    """Color spots by a number, from the 1st to the 99th percentile."""
    spatial(drawn, column, title=title, ax=ax, show=False)
    values = drawn.obs[column].to_numpy(dtype=np.float64)
    if np.isfinite(values).any():
        low, high = np.nanpercentile(values, [1, 99])
        if high > low:
            ax.collections[-1].set_clim(low, high)
    bar = ax.collections[-1].colorbar
    if bar is not None:
        bar.set_label(unit, fontsize=6)


def image_map(drawn: AnnData, title: str, ax: Axes) -> bool:
    """Draw the tissue image where the spots are; return whether there is one."""
    points = drawn.obsm[SPATIAL]
    image = find_picture(drawn, points) if SPATIAL in drawn.uns else None
    if image is None:
        return False
    ax.imshow(image.pixels, extent=(0, image.width, image.height, 0))
    margin = 0.03 * np.ptp(points, axis=0).max()
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return True


def class_map(drawn: AnnData, column: str, shades: Sequence[str], ax: Axes) -> None:
    """Draw domains with their borders and names, so that colors are not needed."""
    spatial(drawn, column, title="", palette=list(shades), ax=ax, show=False)
    if legend := ax.get_legend():
        legend.remove()
    codes = drawn.obs[column].cat.codes.to_numpy()
    points, pairs = drawn.obsm[SPATIAL], touching(drawn.obsm[SPATIAL])
    across = pairs[codes[pairs[:, 0]] != codes[pairs[:, 1]]]
    ax.add_collection(LineCollection(_borders(points, across), colors="#111111", linewidths=0.6))
    for code, place in _labels(points, codes, pairs):
        text = str(drawn.obs[column].cat.categories[code])
        ax.text(*place, text, ha="center", va="center", fontsize=8, weight="bold",
                color="black", path_effects=_HALO)  # fmt: skip


def touching(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """List the pairs of spots that touch."""
    if len(points) < 3:
        return np.empty((0, 2), dtype=np.int64)
    near = nearest(points, 2)
    pitch = float(np.median(np.linalg.norm(points[near[:, 0]] - points[near[:, 1]], axis=1)))
    found = cKDTree(points).query_pairs(_REACH * max(pitch, 1e-9), output_type="ndarray")
    return np.asarray(found, dtype=np.int64)


def _borders(points: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw a line across the middle of each pair: pairs × 2 ends × 2."""
    a, b = points[pairs[:, 0]], points[pairs[:, 1]]
    middle, way = (a + b) / 2, (b - a) / (2 * np.sqrt(3))
    turned = np.c_[-way[:, 1], way[:, 0]]
    return np.stack([middle - turned, middle + turned], axis=1)


def _labels(
    points: NDArray[np.float64], codes: NDArray[Any], pairs: NDArray[np.int64]
) -> list[tuple[int, NDArray[np.float64]]]:
    """Place the name of each domain inside each of its larger parts."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    same = pairs[codes[pairs[:, 0]] == codes[pairs[:, 1]]]
    n = len(points)
    graph = coo_matrix((np.ones(len(same)), same.T), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    placed = []
    for code in np.unique(codes[codes >= 0]):
        own = np.flatnonzero(codes == code)
        names, sizes = np.unique(part[own], return_counts=True)
        order = np.argsort(-sizes, kind="stable")
        for rank, at in enumerate(order[:3]):
            if rank and sizes[at] < max(_LEAST_PART * len(own), 0.01 * n):
                break
            inside = points[own[part[own] == names[at]]]
            # The spot of the part that is farthest from all other spots: well inside of it.
            others = np.delete(points, own[part[own] == names[at]], axis=0)
            middle = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
            free = cKDTree(others).query(inside)[0] if len(others) else np.zeros(len(inside))
            edge = middle / max(float(middle.max()), 1e-9) * np.median(free)
            placed.append((int(code), inside[np.argmax(free - edge)]))
    return placed


def bars(
    values: "pd.Series[float]", strong: Sequence[str], unit: str, form: str = "{:.2f}"
) -> "Figure":
    """Draw a bar for each name, with its value; those of `strong` are darker and hatched."""
    with journal():
        figure, ax = plt.subplots(figsize=(5.2, 0.5 + 0.23 * len(values)), layout="constrained")
        at = np.arange(len(values))
        own = np.isin(values.index, list(strong))
        with mpl.rc_context({"hatch.linewidth": 0.5}):
            for place, value, is_own in zip(at, values, own, strict=True):
                ax.barh(place, value, 0.72, color="#0072B2" if is_own else "#C9CFD6",
                        hatch="////" if is_own else "", edgecolor="white", linewidth=0)  # fmt: skip
        for place, value in zip(at, values, strict=True):
            ax.annotate(form.format(value), (max(value, 0), place), xytext=(3, 0), va="center",
                        textcoords="offset points")  # fmt: skip
        ax.set_yticks(at, [str(name).replace("$", r"\$") for name in values.index])
        ax.set(ylim=(len(values) - 0.4, -0.6), xlabel=unit)
        ax.margins(x=0.12)
        ax.axvline(0, color="black", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
    return figure


def shades_of(n: int) -> list[str]:
    """Choose a color for each of n domains, as maps do."""
    return colors(n)
