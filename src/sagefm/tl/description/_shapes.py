"""Which spots touch, and the area, parts and boundary of each domain."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sagefm._types import Bools, Floats, Positions
from sagefm.pp.grid import Grid
from sagefm.tl.description._sections import DomainSection, LabeledSections

_REACH = 1.3
"""Spots that touch lie within this many pitches."""
_MOST = 8
_RANK = 4
"""A spot inside the tissue has four neighbors at the pitch, on a square and a hexagonal grid."""


def touching(points: Floats) -> Positions:
    """List the pairs of spots that touch: edges × 2, each once.

    On a hexagonal grid these are six neighbors, on a square grid four; off the grid up to eight
    within 1.3 times the usual distance of the fourth.
    """
    k = min(_MOST, len(points) - 1)
    if k < 1:
        return np.empty((0, 2), dtype=np.int64)
    distances, neighbors = map(np.asarray, cKDTree(points).query(points, k + 1))
    pitch = np.median(distances[:, min(_RANK, k)])
    rows, columns = np.nonzero(distances[:, 1:] <= _REACH * pitch)
    pairs = np.sort(np.c_[rows, neighbors[:, 1:][rows, columns]], axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).astype(np.int64)


def shape_table(labeled: LabeledSections) -> pd.DataFrame:
    """Describe each domain of each section.

    Returns
    -------
    section, patient, condition, domain, n_spots, fraction (of the labeled spots), area_mm2 (where
    the pitch is known), n_parts (connected), largest_part (fraction of its spots), boundary
    (fraction of its spots that touch another domain), compactness (edge of a disc of this area
    over the edge of the domain, that of the tissue included; 1 for a disc).
    """
    rows = []
    for section in labeled.sections:
        edges = touching(section.points)
        area = _area_of_spot(section)
        for code, domain in enumerate(labeled.domains):
            inside = section.codes == code
            row: dict[str, object] = {
                "section": section.name, "patient": section.patient,
                "condition": section.condition, "domain": domain, "n_spots": int(inside.sum()),
                "fraction": float(inside.mean()), "area_mm2": inside.sum() * area,
            }  # fmt: skip
            rows.append(row | (_shape(inside, edges) if inside.any() else {"n_parts": 0}))
    return pd.DataFrame(rows)


def _area_of_spot(section: DomainSection) -> float:
    """Compute the area of tissue per spot in mm²; NaN where the pitch is not known."""
    if section.pitch_um is None:
        return np.nan
    grid = Grid.of(section.points) if len(section.points) > _MOST else None
    hexagonal = grid is not None and grid.hexagonal
    return float(section.pitch_um**2 * (np.sqrt(3) / 2 if hexagonal else 1.0) / 1e6)


def _shape(inside: Bools, edges: Positions) -> dict[str, object]:
    n = int(inside.sum())
    within = edges[inside[edges].all(axis=1)]
    crossing = edges[inside[edges].sum(axis=1) == 1]
    graph = csr_matrix(
        coo_matrix((np.ones(len(within)), within.T), shape=(len(inside), len(inside)))
    )
    part = connected_components(graph, directed=False)[1][inside]
    sizes = np.bincount(part)
    sizes = sizes[sizes > 0]
    degree = np.bincount(edges.ravel(), minlength=len(inside))
    full = 6 if len(degree) and np.quantile(degree, 0.75) > _RANK else _RANK
    open_sides = len(crossing) + np.maximum(full - degree[inside], 0).sum()
    # A line cuts 2/π × length of the edges per area: with spots of `full` sides one pitch apart,
    # of √3/2 or 1 squared pitch.
    spot = np.sqrt(3) / 2 if full > _RANK else 1.0
    disc = full / np.pi / spot * 2 * np.sqrt(np.pi * n * spot)
    return {
        "n_parts": len(sizes), "largest_part": float(sizes.max() / n),
        "boundary": len(np.unique(crossing[inside[crossing]])) / n,
        "compactness": float(disc / open_sides) if open_sides else np.nan,
    }  # fmt: skip
