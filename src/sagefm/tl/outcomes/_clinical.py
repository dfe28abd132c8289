"""Clinical columns of the table as features."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Bools, Floats
from sagefm.pp.labels import text_of
from sagefm.tl.outcomes._table import is_number

_MAX_LEVELS = 12
_COPY = 0.999
"""Rank correlation with the outcome from which on a column is a copy of it."""


class Clinical:
    """Clinical columns: numbers and categories, encoded.

    Numbers are standardized. A missing number is the median of the training patients, with another
    feature that says that it is missing. Categories are one feature each, of two categories one
    for both; a missing category is none of them.
    """

    def __init__(self, place: str, rows: pd.DataFrame, columns: Sequence[str]) -> None:
        encoded: dict[str, Floats] = {}
        self.notes: list[str] = []
        for name in columns:
            column = rows[name]
            if column.dropna().nunique() < 2:
                why = "all patients have the same value" if column.notna().any() else "it is empty"
                self.notes.append(f"{name!r} left out, {why}")
            elif is_number(column):
                encoded[name] = column.to_numpy(dtype=float)
            else:
                encoded |= _categories(place, name, text_of(column))
        self.features = list(encoded)
        self._values = (
            np.column_stack(list(encoded.values())) if encoded else np.empty((len(rows), 0))
        )
        self._lacking: Bools = np.asarray(np.isnan(self._values).any(axis=0))
        self.features += [
            f"{name} missing"
            for name, lacking in zip(encoded, self._lacking, strict=True)
            if lacking
        ]

    def __call__(self, training: Bools) -> Floats:
        """Encode all patients by the medians, means and spreads of the training patients."""
        missing = np.isnan(self._values)
        known = np.where(missing, 0.0, self._values)
        for at in np.flatnonzero(missing.any(axis=0)):
            rows = training & ~missing[:, at]
            known[missing[:, at], at] = np.median(known[rows, at]) if rows.any() else 0.0
        values = np.column_stack([known, missing[:, self._lacking].astype(float)])
        spread = values[training].std(axis=0)
        centered = values - values[training].mean(axis=0)
        return np.asarray(centered / np.where(spread > 0, spread, 1.0))


def _categories(place: str, name: str, words: "pd.Series[str]") -> dict[str, Floats]:
    levels = sorted(words.dropna().unique())
    if len(levels) > _MAX_LEVELS:
        raise InputError(
            f"{place}: {name!r} has {len(levels)} different texts ({few(levels)}), and at most "
            f"{_MAX_LEVELS} categories can be used; group them, or give numbers only"
        )
    if len(levels) == 2 and not words.isna().any():
        levels = levels[1:]
    return {f"{name}: {level}": (words == level).to_numpy(dtype=float) for level in levels}


def copies_of(table: pd.DataFrame, columns: Sequence[str], target: "pd.Series[float]") -> list[str]:
    """List the columns that are a copy of the outcome, whatever their values are called."""
    found = []
    for name in columns:
        both = table[name].notna() & target.notna()
        column, outcome = table[name][both], target[both]
        if len(column) < 3 or outcome.nunique() < 2:
            continue
        if is_number(column):
            same = column.nunique() > 1 and abs(column.corr(outcome, "spearman")) > _COPY
        else:
            codes = pd.Series(pd.factorize(text_of(column))[0])
            pairs = set(zip(codes, outcome, strict=True))
            same = len(pairs) == codes.nunique() == outcome.nunique()
        if same:
            found.append(name)
    return found
