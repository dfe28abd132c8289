"""Find the grid that the spots of a slide lie on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

_SAMPLE = 2000
"""Spots whose neighbors are looked at."""
_NEIGHBORS = 64
"""Nearest spots among which the neighbors on the grid are, also where several grids overlap."""
_NUMBERS = 1e100
"""Coordinates whose squares are numbers too."""
_MOST = 1e6
"""Pitches across a slide; coordinates that differ by more are no places."""
_RING = 0.04
"""Width of a ring around a spot, as a fraction of its radius."""
_ON_GRID = 0.3
"""Fraction of the spots that have three or four neighbors at the pitch of a grid."""
_AT_ONCE = 0.25
"""Fraction of the spots that have so many neighbors at the pitch, but not a little nearer."""
_EXACT = 0.85
"""Fraction of the spots that have so many at the pitch where grids of one pitch overlap."""
_SEEN, _TRIED = 0.05, 12
"""Fraction of the spots from which a step must go to be tried, and how many are tried."""
_STRETCHED = 3.5
"""Largest ratio of the distances between the spots of a row and between rows."""
_CROWDED = 0.8
"""Fraction of the pitch within which a spot of a grid has no other spot."""
_FEWEST = 30
"""Spots of which a grid is found."""
_ANGLE, EXACTLY = float(np.radians(30)), float(np.radians(10))
"""Difference of phase between two grids, a twelfth of the pitch; and within a grid."""


@dataclass(frozen=True)
class Grid:
    """A regular grid of spots: hexagonal, square or stretched.

    A grid is described by two waves that have the same phase at all of its spots.
    """

    pitch: float
    exact: bool
    """Whether the spots lie exactly on it."""
    hexagonal: bool
    waves: Floats
    """Two wave vectors, one per row."""
    phases: Floats
    """Phase of each wave at the spots of the grid."""

    @classmethod
    def of(cls, points: Floats) -> Self | None:
        """Find the grid that most spots lie on; None if they lie on no grid."""
        points = _distinct(points)
        n_neighbors = min(_NEIGHBORS, len(points) - 1)
        span = np.ptp(points, axis=0).max()
        if n_neighbors < 6 or not 1 / _NUMBERS < span < _NUMBERS:
            return None
        distances = np.asarray(cKDTree(points).query(_sampled(points), n_neighbors + 1)[0])[:, 1:]
        step = float(np.quantile(distances[:, 0], 0.1))
        if not span < _MOST * step:
            return None
        for steps in islice(_steps(points, step, _SEEN), _TRIED):
            single = cls._with(points, steps, exact=True)
            if single.holds(points, EXACTLY):
                return single
        found = _find_pitch(distances)
        if found is None:
            return None
        common = next(_steps(points, found[0], _ON_GRID), None)
        return None if common is None else cls._with(points, common, exact=found[1])

    @classmethod
    def _with(cls, points: Floats, steps: Floats, *, exact: bool) -> Self:
        """Find the grid that two steps from spot to spot span."""
        lengths = np.linalg.norm(steps, axis=1)
        pitch = float(lengths.min())
        part = parts(points, 4 * pitch)
        largest = points[part == np.bincount(part).argmax()]
        hexagonal = abs(abs(steps[0] @ steps[1]) / lengths.prod() - 0.5) < 0.1
        waves = np.asarray(2 * np.pi * np.linalg.inv(steps).T, dtype=np.float64)
        return cls(pitch, exact, bool(hexagonal), *_fit(largest, waves, pitch))

    @property
    def crowding(self) -> float:
        """Distance within which a spot of the grid has no other spot."""
        return _CROWDED * self.pitch

    def crowded(self, points: Floats) -> float:
        """Return the fraction of spots that have another spot within :attr:`crowding`."""
        points = _distinct(points)
        if len(points) < 2 or not self.exact:
            return 0.0
        nearest = np.asarray(cKDTree(points).query(_sampled(points), 2)[0])[:, 1]
        return float((nearest < self.crowding).mean())

    def holds(self, points: Floats, angle: float = _ANGLE) -> bool:
        """Whether nearly all spots lie on the grid, but for a difference of phase."""
        apart = np.angle(np.exp(1j * (points @ self.waves.T - self.phases)))
        return bool((np.abs(apart).max(axis=1) < angle).mean() > 0.99)

    def misses(self, points: Floats) -> bool:
        """Whether spots lie on another grid."""
        mean = np.exp(1j * (points @ self.waves.T - self.phases)).mean(axis=0)
        return bool((np.abs(mean).min() < 0.5) or (np.abs(np.angle(mean)).max() > _ANGLE))


def grids_of(points: Floats, codes: NDArray[np.int64]) -> list[tuple[Grid, Floats]]:
    """Find the grid that the spots of each code lie on; nothing if one of them has no grid."""
    sizes = np.bincount(codes)
    found = []
    for code in np.argsort(-sizes, kind="stable")[: (sizes >= _FEWEST).sum()]:
        inside = points[codes == code]
        grid = Grid.of(inside)
        if grid is None or not grid.holds(inside):
            return []
        found.append((grid, inside))
    return found


def parts(points: Floats, gap: float) -> NDArray[np.int64]:
    """Divide the tissue at gaps: at wider ones always, at none under a third of it."""
    places = np.floor((points - points.min(axis=0)) / (gap / np.sqrt(8)))
    inside, squares = number_places(places)
    pairs = cKDTree(squares).query_pairs(1.5, output_type="ndarray")
    joined = csr_matrix((np.ones(len(pairs)), pairs.T), shape=(len(squares), len(squares)))
    numbers = connected_components(joined, directed=False)[1]
    return numbers[inside].astype(np.int64)


def nearest_gap(points: Floats, codes: NDArray[np.int64]) -> float:
    """Return the smallest distance between spots of different codes."""
    gap = np.inf
    for code in np.unique(codes):
        own = codes == code
        reach = cKDTree(points[own]).query(points[~own], distance_upper_bound=gap)[0]
        gap = min(gap, float(np.min(reach)))
    return gap


def number_places(points: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Get the number of the place of each point, and the places."""
    (across, columns), (down, rows) = map(pd.factorize, points.T)
    numbers, places = pd.factorize(across * len(rows) + down)
    return numbers, np.column_stack([columns[places // len(rows)], rows[places % len(rows)]])


def _distinct(points: Floats) -> Floats:
    return number_places(points)[1]


def _sampled(points: Floats) -> Floats:
    return points[:: -(-len(points) // _SAMPLE)]


def _find_pitch(distances: Floats) -> tuple[float, bool] | None:
    """Find the smallest distance at which many spots have several neighbors.

    Also return whether that distance is exact, as it is on an array but not where places were
    found by hand.
    """
    usual = float(np.median(distances[:, 0]))
    ring = (distances > _CROWDED * usual) & (distances < usual / _CROWDED)
    if (ring.sum(axis=1) >= 4).mean() > _ON_GRID:
        pitch = float(np.median(distances[ring]))
        return pitch, bool((np.abs(distances[ring] / pitch - 1) < _RING).mean() > 0.8)
    rings = np.floor(np.log(distances / usual) / _RING)
    rings = np.clip(rings, -200, 200).astype(np.int64) + 200
    counts = np.zeros((len(rings), 402), dtype=np.int64)
    np.add.at(counts, (np.arange(len(rings))[:, None], rings), 1)
    together = counts[:, :-1] + counts[:, 1:]
    fractions = (together[:, 1:-2] >= 3).mean(axis=0)
    dense = np.flatnonzero(fractions > _ON_GRID)
    # Of spots anywhere, ever more have three neighbors in ever wider rings; on a grid, all at once.
    if not len(dense) or fractions[dense[0]] - fractions[max(dense[0] - 2, 0)] < _AT_ONCE:
        return None
    inside = (rings == dense[0] + 1) | (rings == dense[0] + 2)
    return float(np.median(distances[inside])), bool(fractions[dense[0]] > _EXACT)


def _steps(points: Floats, pitch: float, least: float) -> Iterator[Floats]:
    """Iterate over pairs of steps from spot to spot that may span the grid.

    The first is as long as the pitch, the second goes across it: the shortest that so many spots
    (`least`, a fraction) have, then longer ones.
    """
    center = points[np.argmin(np.linalg.norm(points - np.median(points, axis=0), axis=1))]
    near = points[np.argsort(np.linalg.norm(points - center, axis=1))[:_SAMPLE]]
    pairs = cKDTree(near).query_pairs(_STRETCHED * pitch, output_type="ndarray")
    steps = near[pairs[:, 1]] - near[pairs[:, 0]]
    first = _common(steps, pitch)
    if first is None:
        return
    lengths = np.linalg.norm(steps, axis=1)
    cosines = np.abs(steps @ first) / (lengths * np.linalg.norm(first))
    across = (cosines < np.cos(np.radians(40))) & (lengths > (1 - 2 * _RING) * pitch)
    steps, lengths = steps[across], lengths[across]
    counts = np.bincount(np.rint(np.log(lengths / pitch) / _RING).astype(np.int64) + 50)
    for ring in np.flatnonzero(counts + np.append(counts[1:], 0) > least * len(near)):
        second = _common(steps, pitch * float(np.exp((ring - 49.5) * _RING)))
        if second is not None:
            yield np.array([first, second])


def _common(steps: Floats, length: float) -> Floats | None:
    """Average the steps of a length that go in the most common direction."""
    lengths = np.linalg.norm(steps, axis=1)
    steps = steps[np.abs(lengths / length - 1) < 2 * _RING]
    directions = np.degrees(np.arctan2(steps[:, 1], steps[:, 0])) % 180
    bins = np.bincount((directions / 5).astype(np.int64) % 36, minlength=36)
    peak = 5.0 * int(np.argmax(bins + np.roll(bins, -1))) + 5
    along = steps[np.abs((directions - peak + 90) % 180 - 90) < 10]
    if len(along) < 4:
        return None
    axis = np.array([np.cos(np.radians(peak)), np.sin(np.radians(peak))])
    mean: Floats = (along * np.sign(along @ axis)[:, None]).mean(axis=0)
    return mean


def _fit(points: Floats, waves: Floats, pitch: float) -> tuple[Floats, Floats]:
    """Fit waves to the spots, from the middle outward so that no period is skipped."""
    center = points[np.argmin(np.linalg.norm(points - np.median(points, axis=0), axis=1))]
    offsets = points - center
    reach = np.linalg.norm(offsets, axis=1)
    radius = max(4 * pitch, float(np.sort(reach)[min(30, len(reach) - 1)]))
    waves, shift = waves.copy(), np.zeros(2)
    while True:
        near = offsets[reach <= radius]
        turns = np.exp(1j * near @ waves.T)
        mean = turns.mean(axis=0)
        residual = np.angle(turns * np.conj(mean / np.maximum(np.abs(mean), 1e-12)))
        design = np.column_stack([np.ones(len(near)), near])
        fitted = np.linalg.lstsq(design, residual, rcond=None)[0]
        waves -= fitted[1:].T
        shift = np.angle(np.exp(1j * near @ waves.T).mean(axis=0))
        if radius >= reach.max():
            break
        radius *= 1.5
    return waves, shift + waves @ center
