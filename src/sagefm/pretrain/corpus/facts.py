"""Facts about slides, from a table."""

from os import PathLike

import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm.pp.labels import text_of, word_of

FACTS = ("patient", "dataset", "organ", "disease", "technology", "license", "source")
"""Columns of such a table, besides ``slide``."""


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """Read a CSV table with a row per slide.

    Raises
    ------
    InputError
        It cannot be read, has no column slide, or has two rows of a slide.
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
    """Get the facts about each slide: those that are not empty, without surrounding blanks.

    Raises
    ------
    InputError
        The table has no column slide, or two rows of a slide.
    """
    if "slide" not in table:
        raise InputError(f"has columns {few(table.columns, 8)}; it needs one named slide")
    facts = table[[column for column in ("slide", *FACTS) if column in table]]
    text = pd.DataFrame({name: text_of(column) for name, column in facts.items()})
    nameless = text["slide"].isna()
    if n_lost := int(text[nameless].notna().any(axis=1).sum()):
        logger.warning("%s of the table name no slide and are left out", numbered(n_lost, "row"))
    text = text[~nameless]
    twice = text["slide"][text["slide"].duplicated()]
    if len(twice):
        raise InputError(f"has two rows of slide {twice.iloc[0]!r}; keep one")
    rows = text.set_index("slide").to_dict("index")
    return {
        str(slide): {str(fact): str(value) for fact, value in row.items() if word_of(value)}
        for slide, row in rows.items()
    }
