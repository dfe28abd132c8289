"""Read positions files: where the spots of a slide are, as Space Ranger and others write it.

The format is found from the content of a file, not from its name alone: a file with a header may
be called ``tissue_positions_list.csv``, and one without ``tissue_positions.csv``.
"""

import csv
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from sagefm._errors import InputError
from sagefm._extras import require
from sagefm._text import few, numbered
from sagefm.pp.tenx import content, unreadable

COORDINATES = ("pxl_col_in_fullres", "pxl_row_in_fullres")
"""The columns with x and y."""
_COLUMNS = {
    "barcode": ("barcode", "barcodes", "", "unnamed_0", "index"),
    "in_tissue": ("in_tissue", "tissue"),
    "array_row": ("array_row", "row"),
    "array_col": ("array_col", "col"),
    "pxl_row_in_fullres": ("pxl_row_in_fullres", "imagerow"),
    "pxl_col_in_fullres": ("pxl_col_in_fullres", "imagecol"),
}
"""Columns of a positions file, in the order of files without header, and their names."""
_AROUND = ' \t"'
_FLAGS = {"true": "1", "false": "0", "t": "1", "f": "0"}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_positions(path: Path) -> pd.DataFrame:
    """Read a positions file: text with or without header, also compressed, or parquet.

    Columns may be separated by commas, semicolons, tabs or spaces; blank lines, quotes and a column
    of row numbers in front are ignored.

    Returns
    -------
    A row per spot of the array, by barcode: ``in_tissue``, ``array_row``, ``array_col`` (if
    available), ``pxl_row_in_fullres``, ``pxl_col_in_fullres``.

    Raises
    ------
    InputError
        Columns are missing or unknown, values are not numbers, or a barcode is duplicated.
    """
    try:
        stored = _read_table(path)
        if stored["barcode"].duplicated().any():
            stored = stored.drop_duplicates()
        table = _numbers(stored.set_index("barcode"), path.name)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(unreadable(path.name, error)) from error
    wrong = table.index[table.index.duplicated() | ~np.isfinite(table).all(axis=1)]
    if len(wrong):
        raise InputError(
            f"{path.name} has no position, or two, for {numbered(len(wrong), 'barcode')} "
            f"({few(wrong)}); correct those lines"
        )
    if "in_tissue" in table and not (odd := table[~table["in_tissue"].isin([0, 1])]).empty:
        raise InputError(
            f"{path.name} has in_tissue {odd['in_tissue'].iloc[0]:g} for {odd.index[0]}, where 0 "
            "or 1 belongs; give it the header of Space Ranger, so that columns are read by name"
        )
    return table


def _read_table(path: Path) -> pd.DataFrame:
    """Read the columns that matter, by name, with values as they are stored."""
    if ".parquet" in path.name:
        require("pyarrow", "hd", f"{path.name}, which is a parquet file,")
        stored = pd.read_parquet(path, engine="pyarrow")
        stored = stored if "barcode" in stored else stored.reset_index()
        return _by_header(stored, [str(name) for name in stored.columns], path)
    lines = [line for line in _text(path).splitlines() if line.strip(' \t,;"')]
    lines = lines[1:] if lines and lines[0].lower().startswith("sep=") else lines
    if not lines:
        raise InputError(f"{path.name} is empty; copy it again")
    separator = max("\t;,", key=lines[0].count)
    if separator not in lines[0]:
        separator, lines = " ", [" ".join(line.split()) for line in lines]
    first = [field.strip(_AROUND) for field in lines[0].split(separator)]
    headed = sum(_NUMBER.fullmatch(field) is not None for field in first) < 3
    if not lines[headed:]:
        raise InputError(
            f"{path.name} has no spots (only the line {lines[0][:40]!r}); copy it again"
        )
    table: pd.DataFrame = pd.read_csv(
        StringIO("\n".join(lines[headed:])),
        sep=separator,
        header=None,
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
    )
    table = table.apply(lambda column: column.str.strip(_AROUND))
    if headed:
        # R leaves out the name of the column of row names.
        names = [""] * (table.shape[1] == len(first) + 1) + first
        return _by_header(table, names, path)
    if _NUMBER.fullmatch(first[0]) and table.shape[1] > 1:
        table = table.iloc[:, 1:]  # row numbers
    if table.shape[1] < len(_COLUMNS) or _NUMBER.fullmatch(str(table.iat[0, 0])):
        raise InputError(_unknown(path, first))
    return table.iloc[:, : len(_COLUMNS)].set_axis(list(_COLUMNS), axis=1)


def _text(path: Path) -> str:
    """Decode a text file; what Excel calls Unicode is UTF-16."""
    data = content(path)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding)


def _by_header(table: pd.DataFrame, names: list[str], path: Path) -> pd.DataFrame:
    """Sort columns by the names in the header."""
    plain = [re.sub(r"\W+", "_", name.strip().lower()).strip("_") for name in names]
    order = {}
    for column, aliases in _COLUMNS.items():
        alias = next((alias for alias in aliases if alias in plain), None)
        if alias is not None:
            if plain.count(alias) > 1:
                raise InputError(f"{path.name} has two columns {alias}; keep one")
            order[column] = table.iloc[:, plain.index(alias)]
        elif column == "barcode" or column.startswith("pxl"):
            raise InputError(_unknown(path, names, column))
    return pd.DataFrame(order)


def _unknown(path: Path, first: list[str], column: str = "barcode") -> str:
    shown = few((name[:30] for name in first), 8)
    return (
        f"{path.name} has no column {column} (its first line: {shown}); "
        "give it the header of Space Ranger, or all six columns and no header"
    )


def _numbers(table: pd.DataFrame, file: str) -> pd.DataFrame:
    """Convert all columns to numbers."""
    if "in_tissue" in table and not is_numeric_dtype(table["in_tissue"]):
        flags = table["in_tissue"].map(lambda value: str(value).strip().lower())
        table["in_tissue"] = flags.replace(_FLAGS)
    numbers: pd.DataFrame = table.apply(pd.to_numeric, errors="coerce")
    bad = (numbers.isna() & ~table.isin(["", "nan", "NaN", "NA"]) & table.notna()).to_numpy()
    if bad.any():
        row, column = np.argwhere(bad)[0]
        value = str(table.iat[row, column])
        remedy = (
            "write numbers with a decimal point and no commas"
            if "," in value
            else "correct that line"
        )
        raise InputError(
            f"{file} has {value[:40]!r} as {table.columns[column]} of {table.index[row]}, which is "
            f"no number; {remedy}"
        )
    return numbers
