"""Match the rows of a table to the spots of a slide by their names."""

import re

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few
from sagefm._types import Positions

_BARCODE = re.compile(
    r"^(?P<prefix>.*?)(?P<code>(?<![ACGTN])[ACGTN]{12,20}(?![ACGTN])|s_\d{3}um_\d{5}_\d{5})"
    r"(?P<ending>[-.]\d+)?(?P<suffix>.*)$"
)


def match_rows(spots: pd.Index, rows: pd.Index, notes: list[str]) -> Positions:
    """Find the row of each spot: by name, else by barcode without what is around it.

    An ending as -1, or the prefix or suffix of a sample, may be on one side only. Visium slides
    share barcodes: two samples that are named, and differ, are not matched.

    Parameters
    ----------
    spots, rows
        Unique names.
    notes
        A note for the user is appended if the names are not the same.

    Returns
    -------
    For each spot the number of its row, -1 for none.

    Raises
    ------
    InputError
        Rows are of several samples, of which one or none is that of the slide.
    """
    exact = rows.get_indexer(spots).astype(np.int64)
    bare_spots, of_spots = _bare(spots)
    bare_rows, of_rows = _bare(rows)
    n_shared = int(bare_spots.isin(bare_rows).sum())
    if n_shared <= (exact >= 0).sum():
        return exact
    if len(of_rows) > 1 or len(of_spots) > 1 or not bare_rows.is_unique:
        if (exact >= 0).any():  # the other rows are of other samples
            return exact
        raise InputError(
            f"names are not those of the spots, and of several samples, which share barcodes (rows "
            f"such as {few(rows, 2)}, spots such as {few(spots, 2)}); keep the rows of this slide, "
            "and name them as its spots"
        )
    if of_spots[0] and of_rows[0] and of_spots != of_rows:
        raise InputError(
            f"rows (such as {rows[0]}) are named after another sample than the spots (such as "
            f"{spots[0]}), and slides share barcodes; rename the rows if they are of this slide"
        )
    loose = bare_rows.get_indexer(bare_spots).astype(np.int64)
    first = int(np.flatnonzero(loose >= 0)[0])
    notes.append(f"rows are matched by barcode: {rows[loose[first]]} is the spot {spots[first]}")
    return loose


def _bare(names: pd.Index) -> tuple[pd.Index, list[str]]:
    """Remove from names what is around a barcode; also list the samples that it tells apart."""
    found = pd.Series(names).str.extract(_BARCODE)
    if found["code"].notna().all():
        samples = found["prefix"] + found["suffix"]
        if (endings := found["ending"].fillna("")).nunique() > 1:
            samples += endings
        return pd.Index(found["code"]), [re.sub(r"[\W_]+", "", one) for one in samples.unique()]
    ending = "-1" if names.str.endswith("-1").all() else ""
    plain = [name.removesuffix(ending) for name in names]
    prefix = re.sub(r"[^_:#|/ ]*$", "", _common_start(min(plain), max(plain)))
    if all(re.match(r"X\d", name) for name in plain):  # R does so to names that begin with a digit
        prefix = "X"
    rest = pd.Index([name.removeprefix(prefix) for name in plain], dtype=object)
    return rest, ["" if prefix == "X" else re.sub(r"[\W_]+", "", prefix)]


def _common_start(first: str, last: str) -> str:
    """Get what the first and the last of sorted names begin with, and so all between them."""
    same = (one == other for one, other in zip(first, last, strict=False))
    return first[: next((i for i, equal in enumerate(same) if not equal), len(first))]
