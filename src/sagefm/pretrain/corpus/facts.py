"""What is known about a slide besides its counts, as a table says it."""

from os import PathLike

import pandas as pd

from sagefm._errors import InputError
from sagefm._text import few

FACTS = ("patient", "organ", "disease", "technology", "license", "source")
"""Columns of such a table, beside ``slide``."""


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """Read a CSV table with a row per slide.

    Raises
    ------
    InputError
        It cannot be read, names no slides, or has two rows of one.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        by_slide(table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    return table


def by_slide(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Give what a table says about each slide: only what is known, without blanks around it.

    Raises
    ------
    InputError
        The table names no slides, or has two rows of one.
    """
    if "slide" not in table:
        raise InputError(f"has columns {few(table.columns, 8)}; it needs one named slide")
    known = table[[column for column in ("slide", *FACTS) if column in table]].astype(object)
    text = known.where(known.notna(), "").astype(str).apply(lambda column: column.str.strip())
    twice = text["slide"][text["slide"].duplicated()]
    if len(twice):
        raise InputError(f"has two rows of slide {twice.iloc[0]!r}; keep one")
    rows = text.set_index("slide").to_dict("index")
    return {
        str(slide): {str(fact): str(value) for fact, value in row.items() if value}
        for slide, row in rows.items()
    }
