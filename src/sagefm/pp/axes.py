"""Read coordinates and flags from tables by the names of their columns."""

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sagefm._errors import InputError
from sagefm._text import few

_X = r"(.*[_\W\d])?{0}([_\W\d].*|coord.*|pos.*|pix.*|px.*|cent.*|loc.*)?"
_FAMILIES = (
    (r".*(pxl|pixel|px).*{0}.*|.*{0}.*(pxl|pixel|px).*", ("col", "row")),
    (r"im(a)?g(e)?[_\W]?{0}.*", ("col", "row")),
    (_X, ("x", "y")),
    (r"(pixel|px|image|img|coord|pos|center|centroid|spatial|loc){0}", ("x", "y")),
    (r"{0}s?(umn|umns)?", ("col", "row")),
    (r"(array|spot|grid).*{0}.*", ("col", "row")),
)
"""Names of the columns with x and y, in lower case; the first pair that is there is taken."""
_FLAGS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "in", "in tissue", "tissue"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "out", "background"), False),
}


def xy_columns(columns: pd.Index) -> tuple[int, int, str]:
    """Find the columns with x and y of a table of coordinates.

    Returns
    -------
    Their positions, and a note if the names do not tell which is x, or nothing.

    Raises
    ------
    InputError
        The names do not tell, and there are more than three columns.
    """
    names = [str(name).strip().lower() for name in columns]
    for pattern, axes in _FAMILIES:
        x, y = (
            [i for i, name in enumerate(names) if re.fullmatch(pattern.format(axis), name)]
            for axis in axes
        )
        if len(x) == 1 and len(y) == 1 and x != y:
            return x[0], y[0], ""
    numbered = [re.sub(r"\D", "", name) for name in names]
    in_order = numbered in (["0", "1"], ["1", "2"], ["0", "1", "2"], ["1", "2", "3"])
    if len(names) == 2 or in_order:
        note = f"the columns of obsm['spatial'] do not say which is x: '{columns[0]}' is taken"
        return 0, 1, "" if in_order else note
    raise InputError(
        f"the columns of obsm['spatial'] do not say which are x and y ({few(columns, 8)}); "
        "name them x and y"
    )


def flags(values: "pd.Series[Any]") -> NDArray[np.bool_] | None:
    """Convert a column of 0 and 1, of booleans, or of such words to booleans.

    Returns
    -------
    A boolean per row, True if the value is missing; None if there are other values.
    """
    texts = values.astype(object).map(lambda value: "1" if pd.isna(value) else str(value))
    found = texts.str.strip().str.lower().map(_FLAGS)
    return None if found.isna().any() else found.to_numpy(dtype=bool)
