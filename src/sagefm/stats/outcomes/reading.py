"""Turn columns of a table of patients, as people write them, into an outcome."""

import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sagefm._errors import InputError
from sagefm._text import MISSING, few, numbered
from sagefm._types import Bools, Codes, Floats
from sagefm.stats.outcomes.kinds import (
    ClassTarget,
    NumberTarget,
    OrdinalTarget,
    SurvivalTarget,
)
from sagefm.stats.outcomes.targets import Target

TargetKind = Literal["classes", "ordinal", "number", "survival"]

_YES = frozenset(
    ["yes", "y", "true", "t", "1", "responder", "response", "r", "positive", "pos", "+"]
)
_NO = frozenset(
    ["no", "n", "false", "f", "0", "nonresponder", "noresponse", "nr", "negative", "neg", "-"]
)
_HAPPENED = _YES | {
    "dead", "died", "deceased", "death", "event", "relapse", "relapsed", "recurrence", "recurred",
    "recurred/progressed", "progression", "progressed",
}  # fmt: skip
_CENSORED = _NO | {
    "alive", "living", "censored", "noevent", "norelapse", "norecurrence", "noprogression",
    "lost", "losttofollowup", "diseasefree", "progressionfree", "free", "none",
}  # fmt: skip
_SCALES = (
    ("none", "mild", "moderate", "severe"),
    ("absent", "weak", "moderate", "strong"),
    ("negative", "weak", "moderate", "strong"),
    ("low", "medium", "high"),
    ("low", "intermediate", "high"),
    ("pd", "sd", "pr", "cr"),
    ("i", "ii", "iii", "iv", "v"),
    ("stage i", "stage ii", "stage iii", "stage iv"),
    ("grade i", "grade ii", "grade iii", "grade iv"),
)
"""Words with an order that is generally agreed on."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_LEVEL = re.compile(r"(\D*)(\d+)")
_MOST_CLASSES = 2
"""Numbers with no more different values than this are classes."""
_FEW = 10
"""The same beside words."""


def target_of(
    table: pd.DataFrame, target: str | tuple[str, str], kind: TargetKind | None = None
) -> Target:
    """Get the outcome of patients from a table.

    Parameters
    ----------
    table
        A row per patient. Patients whose value is missing are predicted only.
    target
        A column; or, for survival, the columns of time and event.
    kind
        What the column holds. If not given: two columns are survival, an ordered categorical is
        ordinal, words and two different numbers are classes, other numbers are numbers.

    Notes
    -----
    - Classes: of yes and no (also true, 1, responder, positive, …) yes is predicted, else the
      second class by name.
    - Ordinal: numbers, an ordered categorical, words with a number (``G1``, ``stage 2``), Roman
      numerals, RECIST (PD < SD < PR < CR) or low/medium/high and the like.
    - Survival: times from zero on; an event is 1 and censored is 0, or an event is 2 and censored
      is 1 (as in R), or words (dead/alive, ``1:DECEASED``, …).

    Raises
    ------
    InputError
        There is no such column, a value cannot be understood, or all are missing; the message
        names the column and the value.
    """
    if kind is not None and kind not in get_args(TargetKind):
        raise InputError(f"kind={kind!r}: choose one of {', '.join(get_args(TargetKind))}")
    if not isinstance(target, str):
        if kind not in (None, "survival"):
            raise InputError(f"target={target!r}: two columns are survival, not {kind}")
        return _survival(table, target)
    if kind == "survival":
        raise InputError(f"target={target!r}: survival needs two columns: time and event")
    column = _column(table, target)
    missing = _is_missing(column)
    if missing.all():
        raise InputError(f"{target}: no patient has a value")
    notes = _left_out(target, int(missing.sum()))
    values = column[~missing]
    kind = kind or _guess(values)
    if kind == "classes":
        classes, codes = _classes(values)
        return ClassTarget(target, ~missing, classes, codes, notes=notes)
    if kind == "ordinal":
        levels, ranks = _levels(target, values)
        return OrdinalTarget(target, ~missing, ranks.astype(np.float64), levels, notes=notes)
    return NumberTarget(target, ~missing, _numbers(target, values), notes=notes)


def _column(table: pd.DataFrame, name: object) -> "pd.Series[Any]":
    """Get a column, without categories and blanks around words."""
    if name not in table:
        raise InputError(
            f"{name}: no such column; the table has {few(table.columns, 20) or 'none'}"
        )
    if (n_columns := int((table.columns == name).sum())) > 1:
        raise InputError(f"{name}: {n_columns} columns of the table have this name")
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered:
        return column
    return column.astype(object).map(_stripped)


def _stripped(value: object) -> object:
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else value


def _is_missing(column: "pd.Series[Any]") -> Bools:
    words = column.astype(object).map(lambda value: str(value).strip() in MISSING)
    return np.asarray(column.isna() | words.astype(bool), dtype=bool)


def _left_out(name: str, n_missing: int) -> tuple[str, ...]:
    if not n_missing:
        return ()
    return (f"{name}: {numbered(n_missing, 'patient')} without a value: predicted only",)


def _guess(values: "pd.Series[Any]") -> TargetKind:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "ordinal"
    numbers = _as_numbers(values)
    missing = np.isnan(numbers)
    if len(np.unique(numbers[~missing])) <= (_FEW if missing.any() else _MOST_CLASSES):
        return "classes"
    return "classes" if missing.mean() > 0.5 else "number"  # which says what is no number


def _as_numbers(values: "pd.Series[Any]") -> Floats:
    """Convert values to numbers, NaN where one is none, such as a date or a boolean."""
    return np.array([_as_number(value) for value in values], dtype=np.float64)


def _as_number(value: object) -> float:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else np.nan
    real = isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
    return float(value) if real else np.nan  # type: ignore[arg-type]


def _word(value: object) -> str:
    """Write a value in a form that can be compared: 1.0 as 1, No-Response as noresponse."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    word = str(value).strip().lower()
    word = word.removesuffix(".0")
    return word if word in ("+", "-") else re.sub(r"[\s_-]+", "", word)


def _classes(values: "pd.Series[Any]") -> tuple[list[str], Codes]:
    """Name the classes and number the patients by them; the positive one of two comes last."""
    words = values.map(_word)
    found = set(words)
    if found <= _YES | _NO and found & _YES and found & _NO:
        names = []
        for group in (_NO, _YES):
            written = values[words.isin(group)].map(_written).unique()
            one = len(written) == 1
            names.append(written[0] if one else "yes" if group is _YES else "no")
        return names, words.isin(_YES).to_numpy().astype(np.int64)
    texts = values.map(_written)
    names = sorted(texts.unique(), key=_natural)
    return names, pd.Categorical(texts, categories=names).codes.astype(np.int64)


def _written(value: object) -> str:
    integer = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if integer else str(value)  # type: ignore[call-overload]


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort G10 after G2."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _numbers(name: str, values: "pd.Series[Any]") -> Floats:
    """Convert values to finite numbers."""
    numbers = _as_numbers(values)
    if not (good := np.isfinite(numbers)).all():
        value = values[~good].iloc[0]
        remedy = "write decimals with a point" if re.fullmatch(r"-?\d+,\d+", str(value)) else (
            "correct it, or leave it empty"
        )  # fmt: skip
        raise InputError(f"{name}: {str(value)!r} is no number; {remedy}")
    return numbers


def _levels(name: str, values: "pd.Series[Any]") -> tuple[list[str], Codes]:
    """Name the levels in order, and number the patients by them."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.cat.remove_unused_categories()
        codes = np.asarray(values.cat.codes, dtype=np.int64)
        return [_written(level) for level in values.cat.categories], codes
    if not np.isnan(_as_numbers(values)).any():
        found, ranks = np.unique(_numbers(name, values), return_inverse=True)
        return [_written(level) for level in found], ranks.astype(np.int64)
    texts = values.map(lambda value: str(value).lower())
    rank_of = _ranks(sorted(texts.unique()))
    if rank_of is None:
        raise InputError(
            f"{name}: the order of {few(values.map(str).unique(), 6)} is not known; use numbers or "
            "an ordered categorical"
        )
    order = sorted(rank_of, key=rank_of.__getitem__)
    first = dict(zip(reversed(texts.to_list()), reversed(values.map(str).to_list()), strict=True))
    numbered_words = {word: number for number, word in enumerate(order)}
    return [first[word] for word in order], np.array([numbered_words[one] for one in texts])


def _ranks(words: Sequence[str]) -> dict[str, int] | None:
    """Rank words by a scale that has all of them, or by the number at their end."""
    for scale in _SCALES:
        if set(words) <= set(scale):
            return {word: scale.index(word) for word in words}
    matches = [_LEVEL.fullmatch(word) for word in words]
    found = [match for match in matches if match]
    if len(found) == len(words) and len({match[1] for match in found}) == 1:
        ranks = {match[0]: int(match[2]) for match in found}
        return ranks if len(set(ranks.values())) == len(ranks) else None
    return None


def _survival(table: pd.DataFrame, target: Sequence[str]) -> SurvivalTarget:
    if len(target) != 2:
        raise InputError(f"target={target!r}: survival needs two columns: time and event")
    time_name, event_name = map(str, target)
    time, event = (_column(table, name) for name in target)
    missing = [_is_missing(time), _is_missing(event)]
    known = ~(missing[0] | missing[1])
    name = f"{time_name}, {event_name}"
    if not known.any():
        raise InputError(f"{name}: no patient has both")
    times = _numbers(time_name, time[known])
    if (times < 0).any():
        raise InputError(
            f"{time_name}: {times[times < 0][0]:g} is negative; give the time from the start of "
            "observation, or leave it empty"
        )
    events, note = _events(event_name, event[known])
    notes = (*_left_out(name, int((~known).sum())), *note)
    return SurvivalTarget(name, known, times, events, time_name, event_name, notes=notes)


def _events(name: str, values: "pd.Series[Any]") -> tuple[Bools, tuple[str, ...]]:
    """Tell events from censored times."""
    words = values.map(_word).map(lambda word: re.sub(r"^[01]:", "", word))
    found = set(words)
    if found <= {"1", "2"} and "2" in found:
        note = f"{name}: 2 is taken for an event and 1 for censored"
        return (words == "2").to_numpy(dtype=bool), (note,)
    for unknown in values[~words.isin(_HAPPENED | _CENSORED).to_numpy()]:
        raise InputError(
            f"{name}: {str(unknown)!r} is not understood; write 1 for an event "
            "and 0 for a patient without it until the end of observation"
        )
    return words.isin(_HAPPENED).to_numpy(dtype=bool), ()
