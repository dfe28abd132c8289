"""Rows that stand for all rows."""

import numpy as np

from sagefm._types import Positions

MANY = 20_000
"""Rows above which clusters are fitted to a sample first, and neighbors are approximate."""


def evenly(n_rows: int, n_wanted: int) -> Positions:
    """Choose row numbers, spread evenly over all rows; all of them if these are not more."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, n_wanted)).astype(np.int64))


def is_many(n_rows: int) -> bool:
    """Whether clusters of so many rows are found by way of a sample."""
    return n_rows > MANY
