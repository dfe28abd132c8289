"""The labels of spots."""

from typing import TYPE_CHECKING

import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few

if TYPE_CHECKING:
    from anndata import AnnData


def labels_of(slide: "AnnData", key: str) -> "pd.Series[str]":
    """Get the labels of the spots as strings, missing where a spot has none (or an empty one).

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
    words = column.astype(str).str.strip()
    return pd.Series(words.where(column.notna() & (words != ""), None), dtype=object)
