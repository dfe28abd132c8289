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
from sagefm._keys import PITCH, PROVENANCE, SPATIAL
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
_HEXAGONAL = 4.2
"""Neighbors of a spot, on average, above which the grid is taken for a hexagonal one."""
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
    known = {PITCH: slide.uns[PITCH]} if PITCH in slide.uns else {}
    part.uns = {
        **image_of(part, part.obsm[SPATIAL]), **known,
        PROVENANCE: {"read": {"slide_key": "section"}},
    }  # fmt: skip
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


def number_map(
    drawn: AnnData, column: str, title: str, unit: str, ax: Axes, *, scale_bar: bool = False
) -> None:
    """Color spots by a number, from the 1st to the 99th percentile."""
    spatial(drawn, column, title=title, image=False, scale_bar=scale_bar, ax=ax, show=False)
    for bar in filter(None, (spots.colorbar for spots in ax.collections)):
        bar.set_label(unit, fontsize=6)


def has_tissue_image(drawn: AnnData) -> bool:
    """Check whether there is an image with anything on it."""
    if SPATIAL not in drawn.uns:
        return False
    image = find_picture(drawn, drawn.obsm[SPATIAL])
    return image is not None and bool(np.ptp(image.pixels) > 0)


def image_map(drawn: AnnData, title: str, ax: Axes) -> None:
    """Draw the tissue image where the spots are."""
    points = drawn.obsm[SPATIAL]
    image = find_picture(drawn, points)
    assert image is not None
    ax.imshow(image.pixels, extent=(0, image.width, image.height, 0))
    margin = 0.03 * np.ptp(points, axis=0).max()
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)


def class_map(
    drawn: AnnData, column: str, shades: Sequence[str], ax: Axes, *, scale_bar: bool = True
) -> None:
    """Draw domains with their borders and names, so that colors are not needed."""
    spatial(drawn, column, title="", palette=list(shades), image=False, scale_bar=scale_bar,
            ax=ax, show=False)  # fmt: skip
    if legend := ax.get_legend():
        legend.remove()
    codes = drawn.obs[column].cat.codes.to_numpy()
    points, pairs = drawn.obsm[SPATIAL], touching(drawn.obsm[SPATIAL])
    across = pairs[codes[pairs[:, 0]] != codes[pairs[:, 1]]]
    sides = 6 if 2 * len(pairs) > _HEXAGONAL * len(points) else 4
    ax.add_collection(
        LineCollection(list(_borders(points, across, sides)), colors="#111111", linewidths=0.6)
    )
    for code, place in _labels(points, codes, pairs):
        text = str(drawn.obs[column].cat.categories[code])
        ax.text(place[0], place[1], text, ha="center", va="center", fontsize=8, weight="bold",
                color="black", path_effects=_HALO)  # fmt: skip


def touching(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """List the pairs of spots that touch."""
    if len(points) < 3:
        return np.empty((0, 2), dtype=np.int64)
    near = nearest(points, 2)
    pitch = float(np.median(np.linalg.norm(points[near[:, 0]] - points[near[:, 1]], axis=1)))
    found = cKDTree(points).query_pairs(_REACH * max(pitch, 1e-9), output_type="ndarray")
    return np.asarray(found, dtype=np.int64)


def _borders(
    points: NDArray[np.float64], pairs: NDArray[np.int64], sides: int
) -> NDArray[np.float64]:
    """Draw the side that two cells of a grid share, for each pair: pairs × 2 ends × 2."""
    a, b = points[pairs[:, 0]], points[pairs[:, 1]]
    middle, way = (a + b) / 2, (b - a) * np.tan(np.pi / sides) / 2
    turned = np.c_[-way[:, 1], way[:, 0]]
    return np.stack([middle - turned, middle + turned], axis=1)


def _labels(
    points: NDArray[np.float64], codes: NDArray[Any], pairs: NDArray[np.int64]
) -> list[tuple[int, NDArray[np.float64]]]:
    """Place the name of each domain in each of its larger parts, far from the border of that."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    same = pairs[codes[pairs[:, 0]] == codes[pairs[:, 1]]]
    n = len(points)
    graph = coo_matrix((np.ones(len(same)), same.T), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    inner = np.bincount(same.ravel(), minlength=n)
    placed = []
    for code in np.unique(codes[codes >= 0]):
        own = np.flatnonzero(codes == code)
        names, sizes = np.unique(part[own], return_counts=True)
        order = np.argsort(-sizes, kind="stable")
        for rank, at in enumerate(order[:3]):
            if rank and sizes[at] < max(_LEAST_PART * len(own), 0.01 * n):
                break
            members = own[part[own] == names[at]]
            rim = members[inner[members] < inner.max()]
            depth = np.zeros(len(members))
            if len(rim):
                depth = np.asarray(cKDTree(points[rim]).query(points[members])[0])
            off = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
            deepest = members[np.lexsort((off, -depth.round(6)))[0]]
            placed.append((int(code), points[deepest]))
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
