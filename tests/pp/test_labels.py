"""A spot without a label has none, whatever says so."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sagefm import InputError
from sagefm.pp.labels import MISSING, labels_of, text_of, word_of
from sagefm.pp.sections import patients_of

VALUES = ["a", "b", None, "a"]


def columns():
    yield "objects", pd.Series(VALUES, dtype=object)
    yield "objects with NaN", pd.Series(["a", "b", np.nan, "a"], dtype=object)
    yield "objects with NA", pd.Series(["a", "b", pd.NA, "a"], dtype=object)
    yield "strings", pd.Series(VALUES, dtype="string")
    yield "inferred", pd.Series(VALUES)
    yield "categories", pd.Series(VALUES).astype("category")
    yield "nullable categories", pd.Series(VALUES, dtype="string").astype("category")
    yield "bytes", pd.Series([b"a", b"b", None, b"a"], dtype=object)
    for word in sorted(MISSING):
        yield f"{word!r}", pd.Series(["a", " b ", f" {word}", "a"])
        yield f"the category {word!r}", pd.Series(["a", "b", word, "a"], dtype="category")
    try:
        yield "arrow", pd.Series(VALUES, dtype="string[pyarrow]")
    except ImportError:
        return


@pytest.mark.parametrize(("kind", "column"), list(columns()))
def test_missing_labels_of_any_type(kind, column):
    labels = text_of(column.rename("label"))
    assert labels.tolist() == ["a", "b", None, "a"]
    assert labels.dtype == object
    assert labels.name == "label"
    assert set(labels.dropna().astype("category").cat.categories) == {"a", "b"}


def test_numbers_and_dates_as_labels():
    assert text_of(pd.Series([1, 2])).tolist() == ["1", "2"]
    assert text_of(pd.Series([1, None], dtype="Int64")).tolist() == ["1", None]
    assert text_of(pd.Series([True, None], dtype="boolean")).tolist() == ["True", None]
    assert text_of(pd.Series([1.0, np.nan])).tolist() == ["1.0", None]
    assert text_of(pd.Series(pd.to_datetime(["2020-01-01", None]))).isna().tolist() == [False, True]
    assert word_of("  tumor core ") == "tumor core"
    with pytest.raises(InputError, match="'x' holds values that are no text"):
        text_of(pd.Series([[1], [2]], name="x"))


def of(**obs):
    return AnnData(np.ones((4, 1)), obs=pd.DataFrame(obs, index=list("wxyz")))


def test_words_for_missing_values_are_not_silent(caplog):
    labels = labels_of(of(label=["a", "NA", "", None]), "label")
    assert labels.index.tolist() == list("wxyz")
    assert labels.isna().tolist() == [False, True, True, True]
    assert caplog.messages == ["obs['label']: no label for 1 spot with 'NA'"]


def test_a_patient_is_never_called_nan():
    for missing in (None, np.nan, "nan", "NA", ""):
        with pytest.raises(InputError, match="s: 1 spots have no 'patient'; fill the column"):
            patients_of("s", of(patient=["p", "p", "p", missing]), "patient", None)
        with pytest.raises(InputError, match="s: has no patient in the table of patients"):
            patients_of("s", of(), "patient", {"s": missing})
