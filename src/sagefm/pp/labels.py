"""Labels as text: of spots, slides and patients, and which of them are missing."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import MISSING, few, numbered

if TYPE_CHECKING:
    from anndata import AnnData


def labels_of(slide: "AnnData", key: str) -> "pd.Series[str]":
    """Get the labels of the spots as strings, None where a spot has none.

    Words that stand for a missing value, such as ``"NA"``, are no labels, with a warning.

    Raises
    ------
    InputError
        There is no such column in ``obs``.
    """
    if key not in slide.obs:
        raise InputError(
            f"obs[{key!r}]: no such column; obs has {few(slide.obs.columns, 20) or 'none'}"
        )
    column = slide.obs[key]
    labels = text_of(column)
    written = (labels.isna() & column.notna()).to_numpy(dtype=bool)
    words = column[written].astype(object).map(str).str.strip()
    words = words[words != ""]
    if len(words):
        n_spots = numbered(len(words), "spot")
        logger.warning(
            "obs[%r]: no label for %s with %s", key, n_spots, few(map(repr, words.unique()))
        )
    return labels


def text_of(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Convert a column of any type to text without surrounding blanks, None where it is missing."""
    values = column.astype(object)
    try:
        codes, found = pd.factorize(values)
    except TypeError as error:  # lists and the like cannot be compared
        raise InputError(f"{column.name!r} holds values that are no text; convert them") from error
    words = np.array([*map(word_of, found), None], dtype=object)
    return pd.Series(words[codes], index=column.index, name=column.name, dtype=object)


def word_of(value: object) -> str | None:
    """Convert one value to text without surrounding blanks; None where it is missing."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    word = str(value).strip()
    return None if word in MISSING else word
