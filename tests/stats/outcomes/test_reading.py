"""Columns of a table of patients, as people write them."""

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.stats.outcomes import target_of


def read(values, kind=None):
    return target_of(pd.DataFrame({"y": values}), "y", kind)


def survival(times, events):
    table = pd.DataFrame({"months": times, "status": events}, index=["p"] * len(times))
    return target_of(table, ("months", "status"))


@pytest.mark.parametrize(
    ("values", "classes", "codes"),
    [
        (["yes", "No", " YES", "no "], ["no", "yes"], [1, 0, 1, 0]),
        ([1, 0, 1], ["0", "1"], [1, 0, 1]),
        ([1.0, np.nan, 0.0], ["0", "1"], [1, 0]),
        ([True, False], ["False", "True"], [1, 0]),
        (["1", "0"], ["0", "1"], [1, 0]),
        (["responder", "non-responder"], ["non-responder", "responder"], [1, 0]),
        (["R", "NR"], ["NR", "R"], [1, 0]),
        ([b"yes", b"no"], ["no", "yes"], [1, 0]),
        (["luminal", "basal"], ["basal", "luminal"], [1, 0]),
        (["G10", "G2", "G1"], ["G1", "G2", "G10"], [2, 1, 0]),
        (pd.array([1, None, 2], dtype="Int64"), ["1", "2"], [0, 1]),
    ],
)
def test_classes(values, classes, codes):
    target = read(values)
    assert target.kind == "classes"
    assert target.classes == classes
    assert target.codes.tolist() == codes


def test_missing_values_are_said_and_predicted_only():
    target = read(["a", None, "b", "NA", "", np.nan])
    assert target.known.tolist() == [True, False, True, False, False, False]
    assert target.notes == ("y: 4 patients without a value: predicted only",)
    assert target.columns()["y"].tolist() == ["a", None, "b", None, None, None]


@pytest.mark.parametrize(
    ("values", "levels", "ranks"),
    [
        (["III", "I", "II"], ["I", "II", "III"], [2, 0, 1]),
        (["stage 2", "Stage 1"], ["Stage 1", "stage 2"], [1, 0]),
        (["CR", "PD", "SD"], ["PD", "SD", "CR"], [2, 0, 1]),
        (["high", "low", "Low"], ["low", "high"], [1, 0, 0]),
        ([30, 10, 20], ["10", "20", "30"], [2, 0, 1]),
        (pd.Categorical(["b", "a"], ["b", "x", "a"], ordered=True), ["b", "a"], [0, 1]),
    ],
)
def test_levels(values, levels, ranks):
    target = read(values, "ordinal")
    assert target.levels == levels
    assert target.values.tolist() == ranks


def test_an_ordered_categorical_is_ordinal_and_numbers_are_numbers():
    assert read(pd.Categorical(["b", "a"], ["b", "a"], ordered=True)).kind == "ordinal"
    assert read(pd.Categorical(["b", "a"])).kind == "classes"
    assert read([1, 2, 3]).kind == "number"
    assert read(["1", "2.5", "-3e1"]).values.tolist() == [1, 2.5, -30]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["3,5", "2"], "number", "y: '3,5' is no number; write decimals with a point"),
        ([1, np.inf, 2], "number", "y: 'inf' is no number"),
        (["1_000", "2"], "number", "y: '1_000' is no number"),
        ([True, False], "number", "y: 'True' is no number"),
        (pd.to_datetime(["2020-01-01"]), "number", "y: '2020-01-01 00:00:00' is no number"),
        (["x", "y"], "ordinal", "y: the order of x, y is not known"),
        ([None, "NA"], None, "y: no patient has a value"),
        ([1, 2], "survival", "survival needs two columns"),
        ([1, 2], "other", "kind='other': choose one of classes, ordinal, number, survival"),
    ],
)
def test_what_cannot_be_understood(values, kind, message):
    with pytest.raises(InputError) as error:
        read(values, kind)
    assert message in str(error.value)


def test_columns_that_are_missing_or_twice_there():
    table = pd.DataFrame([[1, 2, 3]], columns=["a", "b", "b"])
    with pytest.raises(InputError, match="z: no such column; the table has a, b, b"):
        target_of(table, "z")
    with pytest.raises(InputError, match="b: 2 columns of the table have this name"):
        target_of(table, "b")
    with pytest.raises(InputError, match="two columns are survival, not number"):
        target_of(table, ("a", "b"), "number")
    with pytest.raises(InputError, match="survival needs two columns"):
        target_of(table, ("a", "b", "c"))


@pytest.mark.parametrize(
    "events",
    [
        [1, 0, 1], [2, 1, 2], [True, False, True], ["dead", "Alive", "died"], ["1", "0", "1"],
        ["1:DECEASED", "0:LIVING", "1:DECEASED"], [1.0, 0.0, 1.0], ["yes", "no", "yes"],
        ["relapse", "lost to follow-up", "relapse"],
    ],
)  # fmt: skip
def test_events(events):
    target = survival([5, "3.5", 1], events)
    assert target.events.tolist() == [True, False, True]
    assert target.times.tolist() == [5, 3.5, 1]
    assert target.n_events == 2


def test_the_code_of_r_is_said():
    assert survival([1, 2], [1, 2]).notes == ("status: 2 is taken for an event and 1 for censored",)
    assert survival([1, 2], [1, 1]).events.all()


@pytest.mark.parametrize(
    ("times", "events", "message"),
    [
        ([1, -2], [1, 0], "months: -2 is negative"),
        ([1, "soon"], [1, 0], "months: 'soon' is no number"),
        ([1, 2, 3], [0, 1, 2], "status: '2' is not understood"),
        ([1, 2], [1, "perhaps"], "status: 'perhaps' is not understood"),
        ([1, None], [None, 1], "months, status: no patient has both"),
    ],
)
def test_survival_that_cannot_be_understood(times, events, message):
    with pytest.raises(InputError) as error:
        survival(times, events)
    assert message in str(error.value)


def test_survival_without_time_or_event_is_unknown():
    target = survival([0, 2, None, 4], [1, None, 1, 0])
    assert target.known.tolist() == [True, False, False, True]
    assert target.notes == ("months, status: 2 patients without a value: predicted only",)
    columns = target.columns()
    np.testing.assert_array_equal(columns["months"], [0, np.nan, np.nan, 4])
    np.testing.assert_array_equal(columns["status"], [1, np.nan, np.nan, 0])


def test_a_column_of_numbers_and_a_word_and_a_column_of_names_say_so():
    table = pd.DataFrame({"age": ["<5", *map(str, range(23))], "id": [f"x{i}" for i in range(24)]})
    with pytest.raises(InputError, match="'<5' is no number"):
        target_of(table, "age")
    with pytest.raises(InputError, match="24 different values, which are no classes") as caught:
        target_of(table, "id").require_enough()
    assert "x1" not in str(caught.value)
