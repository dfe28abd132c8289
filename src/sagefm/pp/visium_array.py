"""Spots of a simulated Visium array, smooth fields over them, and counts."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sagefm._types import Floats, Singles

Integers = NDArray[np.int64]
Rng = np.random.Generator

PITCH_UM = 100.0
"""Distance between the centers of neighboring spots."""
PIXELS_PER_UM = 2.0
BORDER = 0.7
"""Width of the transition between two regions, in pitches."""


def hexagons(n_spots: int, radius: float, rng: Rng, *, square: bool = False) -> Integers:
    """Choose the spots (array_row, array_col) under a round or square tissue, in array order."""
    reach = int(1.5 * radius) + 3
    rows, cols = np.mgrid[-reach : reach + 1, -2 * reach : 2 * reach + 1]
    even = (rows + cols) % 2 == 0
    grid: Integers = np.column_stack([rows[even], cols[even]])
    grid = grid[_under_tissue(pitches(grid), n_spots, rng, square=square)]
    row, col = grid.min(axis=0)
    grid -= (row, col - (col - row) % 2)  # from 0 on; row and column keep their common parity
    return grid


def squares(n_bins: int, radius: float, rng: Rng, *, square: bool = False) -> Integers:
    """Choose the bins (array_row, array_col) under such a tissue; `radius` is in bins."""
    reach = int(1.5 * radius) + 3
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    grid: Integers = np.column_stack([rows.ravel(), cols.ravel()])
    grid = grid[_under_tissue(grid[:, ::-1].astype(np.float64), n_bins, rng, square=square)]
    grid -= grid.min(axis=0)
    return grid


def _under_tissue(places: Floats, n_spots: int, rng: Rng, *, square: bool) -> Integers:
    """Choose the places (x, y) within a wavy outline, in their order."""
    x, y = places.T
    angle = np.arctan2(y, x)
    waves = np.arange(2, 5)
    phases = rng.uniform(0, 2 * np.pi, len(waves))
    outline = 1 + 0.05 * np.cos(waves * angle[:, None] + phases).sum(axis=1)
    distance = (x**4 + y**4) ** 0.25 if square else np.hypot(x, y)
    return np.sort(np.argsort(distance / outline, kind="stable")[:n_spots])


def pitches(grid: Integers) -> Floats:
    """Convert array rows and columns to places (x, y), in pitches."""
    return np.stack([grid[:, 1] / 2, grid[:, 0] * np.sqrt(0.75)], axis=1)


def barcodes(grid: Integers) -> list[str]:
    """Encode array positions as 16 letters; an odd factor is one to one modulo 2**32."""
    codes = ((grid[:, 0] << 16) + grid[:, 1]) * 2_654_435_761 + 0x9E37_79B9
    digits = (codes[:, None] >> np.arange(0, 32, 2)) & 3
    return ["".join(letters) + "-1" for letters in np.array(list("ACGT"))[digits]]


def fields(places: Floats, n_fields: int, length: float, rng: Rng) -> Floats:
    """Draw smooth random fields: spots × fields, each of mean 0 and sd 1 over the slide."""
    fields = np.empty((len(places), n_fields))
    for column in range(n_fields):
        waves = rng.normal(0.0, 1 / length, (2, 24))
        phases = rng.uniform(0, 2 * np.pi, 24)
        fields[:, column] = np.cos(places @ waves + phases).sum(axis=1)
    fields -= fields.mean(axis=0)
    fields /= fields.std(axis=0)
    return fields


def soft(distance: Floats) -> Floats:
    """Convert a distance from a border, in pitches, to a fraction between 0 and 1."""
    return 0.5 + 0.5 * np.tanh(distance / (2 * BORDER))


def negative_binomial(rate: Singles, dispersion: Singles, rng: Rng) -> sparse.csr_matrix:
    """Draw spots × genes counts of mean `rate` and variance rate + dispersion × rate².

    A negative binomial count is a Poisson number of bursts of logarithmic size. It is zero if the
    exponential waiting time to the first burst exceeds the rate of bursts, so that only one draw
    is needed for zero entries.
    """
    mean = rate * dispersion
    bursts = np.log1p(mean) / dispersion
    wait = rng.standard_exponential(rate.shape, dtype=np.float32)
    rows, cols = np.nonzero(wait < bursts)
    n_bursts = 1 + rng.poisson(bursts[rows, cols] - wait[rows, cols])
    odds = mean[rows, cols].astype(np.float64)
    sizes = rng.logseries(np.repeat(odds / (1 + odds), n_bursts))
    entry = np.repeat(np.arange(len(rows)), n_bursts)
    counts = np.bincount(entry, weights=sizes, minlength=len(rows)).astype(np.float32)
    starts = np.searchsorted(rows, np.arange(rate.shape[0] + 1))
    return sparse.csr_matrix((counts, cols.astype(np.int32), starts), shape=rate.shape)
