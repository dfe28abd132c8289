"""Find evidence that an object holds several slides, whatever its columns are called."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm import _keys
from sagefm._errors import InputError
from sagefm._text import few
from sagefm.pp.counts import coordinates
from sagefm.pp.grid import EXACTLY, Grid, grids_of, nearest_gap, number_places, parts

if TYPE_CHECKING:
    from anndata import AnnData

Codes = NDArray[np.int64]

_BARCODE = re.compile(r"[ACGTN]{8,}|s_\d+um_\d+_\d+|\d+x\d+")
"""Barcodes of 10x and others, bins of Visium HD, and array positions of legacy slides."""
_NAMES = 100_000
"""Names that are looked at; of more, every second, third, …"""
_FRACTION, _LEAST = 0.02, 4
"""So many spots, of all and in number, are no accident."""
_SMALLEST = 15
"""Spots for each value of a column of slides, on average."""
_FAR, _FARTHEST = 20, 64
"""Pitches between tissue on one array and on another beside it, and across the usual array."""
_WIDEST = 120
"""Pitches across a hexagonal array: those of Visium are at most 112 wide."""
_COLUMNS = (
    *("slide", "slideid", "slidename", "libraryid", "library", "sample", "sampleid", "samplename"),
    *("section", "sectionid", "sectionname", "batch", "origident", "slice", "sliceid", "puck"),
    *("puckid", "capturearea", "captureareaid"),
)
"""Usual names of the ``obs`` column with the slide of a spot, as :func:`plain` writes them."""
_OTHER_COLUMNS = (
    *("image", "imageid", "region", "fov", "roi", "patient", "patientid", "donor", "donorid"),
    *(
        "subject",
        "individual",
        "specimen",
        "replicate",
        "dataset",
        "source",
        "run",
        "chip",
        "block",
    ),
)
"""Names that are used for slides, and for other things too."""


@dataclass(frozen=True)
class Evidence:
    """Why an object holds several slides, and the column that tells them apart if there is one."""

    why: str
    key: str | None


@dataclass(frozen=True)
class _Proof:
    why: str
    left: Callable[[Codes], float]
    """Fraction of the spots for which it still holds within the values of a column."""


def find_evidence(slide: "AnnData") -> Evidence | None:
    """Find what shows that an object holds several slides; None if nothing does.

    Places, barcodes and the grid of the spots are evidence; a column alone never is, so that
    labels, clusters and domains can be of any kind.
    """
    if not slide.n_obs:
        return None
    try:
        points = coordinates(slide)
    except InputError:
        points = None
    proofs = [*_of_layers(slide), *_of_barcodes(slide.obs_names)]
    proofs += [] if points is None else _of_places(slide, points)
    grid = None if points is None else Grid.of(points)
    if grid is not None and points is not None:
        proofs += _of_overlap(points, grid)
    if proofs:
        left = {key: max(proof.left(codes) for proof in proofs) for key, codes in candidates(slide)}
        best = min(left, key=lambda key: left[key], default=None)
        fits = best is not None and left[best] < _FRACTION
        return Evidence(proofs[0].why, best if fits else None)
    return None if grid is None or points is None else _of_columns(slide, points, grid)


def usual(slide: "AnnData") -> list[str]:
    """List the columns of ``obs`` whose names are usual for slides."""
    known = {plain(name): name for name in reversed(columns_of(slide))}
    return [known[name] for name in _COLUMNS if name in known]


def columns_of(slide: "AnnData") -> list[str]:
    """List the columns of ``obs`` that have a name of their own, which is a text."""
    names = slide.obs.columns
    return [name for name in names[~names.duplicated(keep=False)] if isinstance(name, str)]


def plain(name: object) -> str:
    """Write a name in small letters and digits only: Sample.ID is sampleid."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def candidates(slide: "AnnData") -> Iterator[tuple[str, Codes]]:
    """Iterate over the columns that may hold the slide of each spot, usual names first."""
    listed = [*_COLUMNS, *_OTHER_COLUMNS]
    rank = {name: number for number, name in enumerate(listed)}
    for name in sorted(columns_of(slide), key=lambda name: rank.get(plain(name), len(rank))):
        try:
            codes, values = pd.factorize(slide.obs[name])
        except TypeError:  # values that cannot be compared
            continue
        if 2 <= len(values) <= slide.n_obs // _SMALLEST and (codes >= 0).all():
            yield name, codes.astype(np.int64)


def _of_layers(slide: "AnnData") -> Iterator[_Proof]:
    """Stacked sections: a third coordinate with a few values."""
    try:
        stored = np.asarray(slide.obsm[_keys.SPATIAL])
        depth = stored[:, 2].astype(np.float64) if stored.shape[1] == 3 else None
    except (KeyError, IndexError, ValueError, TypeError):
        return
    if depth is None or not np.isfinite(depth).all():
        return
    layers, values = pd.factorize(depth)
    if 2 <= len(values) <= slide.n_obs // _SMALLEST:
        why = f"the third coordinate in obsm['spatial'] has {len(values)} values ({few(values)})"
        yield _Proof(why, lambda codes: _mixed(layers, codes))


def _of_barcodes(names: pd.Index) -> Iterator[_Proof]:
    """Barcodes that occur twice, told apart by what is added to them."""
    step = -(-len(names) // _NAMES)
    listed = [str(name) for name in names[::step]]
    found = [_BARCODE.search(name) for name in listed]
    barcodes = [match.group() for match in found if match]
    if len(barcodes) < len(listed):
        return
    added = [
        (name[: match.start()], name[match.end() :])
        for name, match in zip(listed, found, strict=True)
        if match
    ]
    codes, values = pd.factorize(pd.Series(added, dtype=object))
    same = pd.factorize(np.array(barcodes))[0]
    repeated = _repeated(np.zeros_like(same), same)
    sizes = np.sort(np.bincount(codes))[::-1]
    numbers = all(re.fullmatch(r"(?:[-_.]\d+)+", end) and not start for start, end in values)
    several = 2 <= len(values) <= max(2, len(listed) // _SMALLEST) and _many(sizes[1], len(listed))
    if (several and numbers) or _many(repeated, len(listed)):
        shown = few("…".join(value) if value[0] else value[1] for value in values)
        why = f"the names of the spots differ in what is added to their barcodes ({shown})"
        if len(values) == 1:
            why = f"{repeated:,} spots share their barcode with another spot"

        def left(column: Codes) -> float:
            column = column[::step]
            repeated = _repeated(column, same) / len(same)
            return max(repeated, _mixed(codes, column)) if several else repeated

        yield _Proof(why, left)


def _of_places(slide: "AnnData", points: NDArray[np.float64]) -> Iterator[_Proof]:
    """Spots that share a position of the array, or their coordinates."""
    array = ["array_row", "array_col"]
    tables = {"coordinates": points}
    if all(name in slide.obs and _is_number(slide.obs[name]) for name in array):
        tables = {"array_row and array_col": slide.obs[array].to_numpy(dtype=np.float64), **tables}
    for name, table in tables.items():
        known = np.asarray(np.isfinite(table).all(axis=1))
        places = number_places(table[known])[0]
        repeated = _repeated(np.zeros_like(places), places)
        if _many(repeated, len(points)) and places.max() >= _SMALLEST:
            why = f"{repeated:,} spots share their {name} with another spot"
            yield _Proof(why, partial(_repeated_within, places, known))


def _repeated_within(places: Codes, known: NDArray[np.bool_], codes: Codes) -> float:
    return _repeated(codes[known], places) / len(codes)


def _of_overlap(points: NDArray[np.float64], grid: Grid) -> Iterator[_Proof]:
    """Spots between the places of a grid: other grids overlap with it."""
    crowded = grid.crowded(points)

    def left(codes: Codes) -> float:
        return max((own.crowded(spots) for own, spots in grids_of(points, codes)), default=1.0)

    if crowded > 2 * _FRACTION:
        yield _Proof(
            f"the spots lie on several grids that overlap ({crowded:.0%} of the spots have another "
            f"within {grid.crowding:.3g} of them, where the pitch of a grid is {grid.pitch:.3g})",
            left,
        )


def _of_columns(slide: "AnnData", points: NDArray[np.float64], grid: Grid) -> Evidence | None:
    """Columns whose values lie on grids of their own, or far apart."""
    single = grid.holds(points, EXACTLY)
    whole = not parts(points, _FAR * grid.pitch).any()
    if single and whole:
        return None
    wide = grid.hexagonal and np.ptp(points, axis=0).max() > _WIDEST * grid.pitch
    for key, codes in candidates(slide):
        grids = [] if single else grids_of(points, codes)
        if any(grids[0][0].misses(spots) for _, spots in grids):
            why = f"the spots of each value of obs['{key}'] lie on a grid of their own"
            return Evidence(why, key)
        near = _FAR if wide or plain(key) in _OTHER_COLUMNS else _FARTHEST
        if not whole and nearest_gap(points, codes) > near * grid.pitch:
            return Evidence(f"the spots of each value of obs['{key}'] lie far from the others", key)
    return None


def _many(number: int, n_spots: int) -> bool:
    return bool(number >= max(_LEAST, _FRACTION * n_spots))


def _repeated(codes: Codes, places: Codes) -> int:
    """Count the spots that share their place with another spot of the same code."""
    sizes = np.unique(codes * (places.max(initial=0) + 1) + places, return_counts=True)[1]
    return int(sizes[sizes > 1].sum())


def _mixed(inner: NDArray[np.integer], codes: Codes) -> float:
    """Return the fraction of the spots that have another inner code than most of their code."""
    return float(1 - pd.crosstab(codes, inner).to_numpy().max(axis=1).sum() / len(codes))


def _is_number(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
