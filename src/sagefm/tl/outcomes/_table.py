"""Read the table of patients, whatever wrote it, and match its patients to those of the slides."""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sagefm._errors import InputError, logger
from sagefm._text import few, numbered
from sagefm.pp.labels import text_of

_PATIENT, _SLIDE = "patient", "slide"
_IDS = (_PATIENT, "patient_id", "patientid")
"""Usual names of the column, in lower case, with blanks and hyphens as underscores."""
_SEPARATORS = ("\t", ";", ",")
_NO_VALUE = frozenset(
    [
        "na", "n.a.", "null", "missing", "unknown", "unk", "unspecified", "undetermined", ".", "?",
        "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "not available", "not applicable",
        "not reported", "not evaluated", "not evaluable", "not assessed", "not done", "not known",
        "not recorded", "pending", "tbd", "#value!", "#ref!", "#div/0!", "#name?", "#num!",
        "#null!", "-9", "-99", "-999", "-9999",
    ]
)  # fmt: skip
"""What people write where there is no value, in lower case, beyond what every table has."""
_CODES = (-9.0, -99.0, -999.0, -9999.0)
"""Numbers that stand for a missing one where no other number is negative."""
_LARGE_CODES = (99.0, 999.0, 9999.0)
_FAR = 1.2
"""By how much a code is more than all other numbers, at least."""


@dataclass(frozen=True)
class PatientTable:
    """A row per patient, with text, numbers or ordered categories in its columns."""

    rows: pd.DataFrame
    """Its index is the patient, as text."""
    place: str
    """What messages call it."""
    patient_of: dict[str, str]
    """Slide → patient; empty if the table had no column with the slides."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Column → what a user should know of it."""

    def column(self, name: str, what: str) -> str:
        """Find a column by its name, also in another case or with blanks around it.

        Raises
        ------
        InputError
            There is no such column.
        """
        if not isinstance(name, str):
            raise InputError(f"{what}={name!r}: give the name of a column")
        if name in self.rows:
            return name
        same = [one for one in self.rows if _plain(one) == _plain(name)]
        if len(same) == 1:
            return str(same[0])
        columns = few(self.rows.columns, 20) or "no other column"
        raise InputError(f"{self.place}: has no column {str(name)!r} ({what}); it has {columns}")

    def match(self, patients: Iterable[str]) -> dict[str, str]:
        """Map patients of slides to rows: by their exact names, else by what is left of them.

        Case, blanks around a name, zeros before a number and ``.0`` after it do not count, where
        nothing else has the same name without them.
        """
        found = {name: name for name in patients if name in self.rows.index}
        others = [name for name in dict.fromkeys(patients) if name not in found]
        sizes = Counter(_simplified(name) for name in dict.fromkeys(patients))
        rows: dict[str, list[str]] = {}
        for name in self.rows.index:
            rows.setdefault(_simplified(name), []).append(name)
        taken = set(found.values())
        near = {
            name: rows[short][0]
            for name in others
            if len(rows.get(short := _simplified(name), [])) == 1
            and sizes[short] == 1
            and rows[short][0] not in taken
        }
        if near:
            logger.warning(
                "%s: %s of slides matched without regard to case, blanks and zeros in their names",
                self.place, numbered(len(near), "patient"),
            )  # fmt: skip
        return found | near


def patient_table(source: "pd.DataFrame | str | Path", patient_key: str = _PATIENT) -> PatientTable:
    """Read a table with a row per patient.

    Parameters
    ----------
    source
        A DataFrame, or a file with commas, semicolons or tabs, also compressed (``.gz``). Patients
        are in the column `patient_key`, ``"patient"`` or ``"patient_id"``, or else in the index (a
        first column without a name). Rows of slides, with a column ``"slide"``, are joined to rows
        of patients.
    patient_key
        Name of the column with the patient.

    Raises
    ------
    InputError
        There is no such file, or no table in it; no column has the patients; a row has none; rows
        of a patient differ, or a slide is of two patients.
    """
    if isinstance(source, pd.DataFrame):
        place, table, decimal_comma = "table", source.copy(), False
    elif isinstance(source, str | Path):
        place = str(source)
        table, decimal_comma = _read(Path(source))
    else:
        raise InputError(f"table: is a {type(source).__name__}; give a DataFrame or a CSV file")
    if isinstance(table.index, pd.MultiIndex):
        table = table.reset_index(allow_duplicates=True)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if again := [name for name, n in Counter(table.columns).items() if n > 1]:
        if "" in again:
            raise InputError(
                f"{place}: columns with cells have no name; its first row must name the columns"
            )
        raise InputError(f"{place}: has several columns {few(map(repr, again))}; rename them")
    table = _with_patient(table, place, patient_key)
    empty = table.apply(lambda column: text_of(column).isna()).all(axis=1)
    table = table[~empty.to_numpy(dtype=bool)]
    patients = text_of(table[_PATIENT])
    if missing := np.flatnonzero(patients.isna()).tolist():
        raise InputError(
            f"{place}: row {missing[0] + 1} has no patient; fill it in, or leave the row out"
        )
    if table.empty:
        raise InputError(f"{place}: has no rows; give one for each patient")
    table[_PATIENT] = patients
    patient_of = _patients_of_slides(table, place)
    typed, notes = _typed(table.drop(columns=_SLIDE, errors="ignore"), decimal_comma)
    return PatientTable(_joined(typed, place), place, patient_of, notes)


def is_number(column: "pd.Series[Any]") -> bool:
    """Whether a column of the table holds numbers."""
    return bool(pd.api.types.is_float_dtype(column.dtype))


def _read(path: Path) -> tuple[pd.DataFrame, bool]:
    """Read a file as text; and whether its numbers may have a comma for the decimal point."""
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise InputError(f"{path}: is a spreadsheet; save it as CSV")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({why}); check the path") from error
    words = _decoded(content)
    if "\0" in words:
        raise InputError(f"{path}: is no text; save the table as CSV")
    lines = [line for line in words.splitlines(keepends=True) if not _is_comment(line)]
    if not any(map(str.strip, lines)):
        raise InputError(f"{path}: is empty; give a row for each patient")
    lines = list(dropwhile(lambda line: not line.strip(), lines))
    separator = max(_SEPARATORS, key=lines[0].count)
    if declared := re.fullmatch(r"sep=(.)\s*", lines[0]):  # as Excel writes it
        separator, lines = declared[1], lines[1:]
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"{path}: is not a table of text ({error}); save it as CSV") from error
    rows = [row for row in rows if any(map(str.strip, row))]
    return _rectangle(rows, str(path)), separator != ","


def _is_comment(line: str) -> bool:
    """Whether a line is a comment, and not the names of columns after a sign."""
    first = re.split("[,;\t]", line)[0]
    return line.startswith("#") and _plain(first.lstrip("# ")) not in _IDS


def _rectangle(rows: list[list[str]], place: str) -> pd.DataFrame:
    """Make a table of rows of cells, the first of which are the names of columns."""
    header, body = [name.lstrip("# ") for name in rows[0]], rows[1:]
    if body and all(len(row) == len(header) + 1 for row in body):
        header = ["", *header]  # as R writes it, with the names of rows
    for number, row in enumerate(body, start=1):
        if any(map(str.strip, row[len(header) :])):
            raise InputError(
                f"{place}: row {number} has {len(row)} cells, and there are {len(header)} names of "
                "columns; put cells with separators in quotation marks"
            )
    cells = [(row + [""] * len(header))[: len(header)] for row in body]
    kept = [at for at, name in enumerate(header) if name.strip() or at == 0 or
            any(row[at].strip() for row in cells)]  # fmt: skip
    table = pd.DataFrame(cells, columns=range(len(header)), dtype=object)[kept]
    return table.set_axis([header[at] for at in kept], axis=1)


def _decoded(content: bytes) -> str:
    """Decode what spreadsheets write."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _with_patient(table: pd.DataFrame, place: str, patient_key: str) -> pd.DataFrame:
    """Name the column with the patients ``"patient"``."""
    exact = [name for name in table if name == patient_key]
    near = [name for name in table if _plain(name) == _plain(patient_key)]
    usual = [name for key in _IDS for name in table if _plain(name) == key]
    unnamed = [name for name in table.columns[:1] if name == "" or name.startswith("Unnamed: 0")]
    if found := exact or near or usual or unnamed:
        return table.rename(columns={found[0]: _PATIENT})
    if not isinstance(table.index, pd.RangeIndex):
        return table.rename_axis(_PATIENT).reset_index()
    columns = few(table.columns, 20) or "none"
    raise InputError(f"{place}: has no column {patient_key!r} with the patients; it has {columns}")


def _patients_of_slides(table: pd.DataFrame, place: str) -> dict[str, str]:
    if _SLIDE not in table:
        return {}
    pairs = pd.DataFrame({_SLIDE: text_of(table[_SLIDE]), _PATIENT: table[_PATIENT]}).dropna()
    pairs = pairs.drop_duplicates()
    shared = pairs[_SLIDE][pairs[_SLIDE].duplicated()]
    if len(shared):
        owners = pairs[_PATIENT][pairs[_SLIDE] == shared.iloc[0]]
        raise InputError(
            f"{place}: slide {shared.iloc[0]} is of several patients ({few(owners)}); a slide "
            "has one"
        )
    return dict(zip(pairs[_SLIDE], pairs[_PATIENT], strict=True))


def _typed(table: pd.DataFrame, decimal_comma: bool) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Convert columns to numbers where all their entries are, else to text; keep ordered ones.

    Returns
    -------
    The table, and notes on each column.
    """
    typed: dict[str, pd.Series[Any]] = {}
    notes = {}
    for name, column in table.items():
        words = text_of(column)
        if name == _PATIENT:
            typed[_PATIENT] = words
            continue
        known = _known(words)
        if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
            typed[str(name)] = column.where(known.notna())
        else:
            typed[str(name)] = _without_codes(_numbers(known, decimal_comma))
        notes[str(name)] = [*_notes(str(name), words, typed[str(name)])]
    return pd.DataFrame(typed), notes


def _known(words: "pd.Series[str]") -> "pd.Series[str]":
    """Remove words that say that there is no value; a minus beside a plus is one."""
    folded = words.map(lambda word: word.casefold().strip("[]()<>"), na_action="ignore")
    missing = folded.isin(_NO_VALUE - ({"-"} if (folded == "+").any() else set()))
    if not pd.to_numeric(folded[~missing], errors="coerce").isna().any():
        missing &= pd.to_numeric(folded, errors="coerce").isna()  # numbers have rules of their own
    return words.mask(missing, None)


def _without_codes(column: "pd.Series[Any]") -> "pd.Series[Any]":
    if not is_number(column):
        return column
    codes = column.isin(_CODES)
    return column.mask(codes) if (column[~codes] >= 0).any() and not (
        column[~codes] < 0
    ).any() else column  # fmt: skip


def _notes(name: str, words: "pd.Series[str]", column: "pd.Series[Any]") -> Iterator[str]:
    """Say what was taken for missing, and what may be wrong."""
    lost = words[words.notna() & column.isna()]
    if len(lost):
        yield f"{name}: {few(sorted(lost.unique()))} taken for missing"
    if is_number(column):
        for code in _LARGE_CODES:
            others = column[column != code].dropna()
            if (column == code).any() and len(others) and code > _FAR * others.max() > 0:
                yield (
                    f"{name}: is {code:g} somewhere, and at most {others.max():g} elsewhere; leave "
                    "it empty if it stands for a missing number"
                )
        return
    spellings = pd.Series(column.dropna().unique()).astype(str)
    variants = spellings.groupby(spellings.map(_plain)).agg(list)
    for same in variants[variants.map(len) > 1]:
        yield f"{name}: {few(sorted(same))} count as different; write them alike if they are not"


def _numbers(words: "pd.Series[str]", decimal_comma: bool) -> "pd.Series[Any]":
    known = words.dropna()
    written = known
    if decimal_comma and known.str.fullmatch(r"[-+]?\d+(,\d+)?").all():
        written = known.str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(written, errors="coerce")
    if known.empty or numbers.isna().any() or not np.isfinite(numbers.astype(float)).all():
        return words
    return numbers.astype(float).reindex(words.index)


def _joined(table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Join rows of a patient that say the same; where one is empty, another counts."""
    for patient, rows in table.groupby(_PATIENT, sort=False):
        if len(rows) == 1:
            continue
        differing = [name for name in rows if rows[name].dropna().nunique() > 1]
        if differing:
            raise InputError(
                f"{place}: patient {patient} has {len(rows)} rows, which differ in "
                f"{few(differing)}; keep one row for each patient"
            )
    return table.groupby(_PATIENT, sort=False).first()


def _plain(name: object) -> str:
    return re.sub(r"[\s\-]+", "_", str(name).strip().casefold())


def _simplified(name: str) -> str:
    """Remove what spreadsheets add to a name or take from it."""
    short = " ".join(name.split()).casefold()
    if re.fullmatch(r"\d+(\.0+)?", short):
        return short.partition(".")[0].lstrip("0") or "0"
    return short
