"""Tables of patients, as people and spreadsheets write them."""

import gzip

import numpy as np
import pandas as pd
import pytest

from sagefm import InputError
from sagefm.tl.outcomes._table import patient_table

ROWS = [("p1", "yes", 61.5), ("p2", "no", 48.0), ("p3", "", np.nan)]
PLAIN = "patient,response,age\np1,yes,61.5\np2,no,48\np3,,\n"


@pytest.fixture
def written(tmp_path):
    def write(content, name="patients.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def check(table):
    assert list(table.rows.index) == ["p1", "p2", "p3"]
    assert table.rows["response"].tolist() == ["yes", "no", None]
    np.testing.assert_array_equal(table.rows["age"], [61.5, 48.0, np.nan])


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "a.csv"),
        (PLAIN.replace(",", "\t"), "a.tsv"),
        (PLAIN.replace(",", "\t"), "tabs.csv"),
        (PLAIN.replace(",", ";").replace(".", ","), "semicolons.csv"),
        (b"\xef\xbb\xbf" + PLAIN.encode(), "bom.csv"),
        (PLAIN.encode("utf-16"), "excel.txt"),
        (gzip.compress(PLAIN.encode()), "a.csv.gz"),
        (PLAIN.replace("\n", "\r\n") + ",,\r\n", "windows.csv"),
        (PLAIN.replace("patient,", "Patient ID,").replace("p1", " p1 "), "names.csv"),
        (PLAIN.replace("patient,", ","), "index.csv"),
        (PLAIN + "p2,no,\n", "twice.csv"),
        ("# from a portal, of ours\n#,\n" + PLAIN, "comments.csv"),
        ("#" + PLAIN.replace(",", ",  "), "sign.csv"),
        (PLAIN.replace("patient,", ""), "of_r.csv"),
        (PLAIN.replace("\n", ",,\n"), "empty_columns.csv"),
        (PLAIN.replace("p2", '"p2"').replace("age", '"age"'), "quoted.csv"),
    ],
)
def test_tables_of_every_program_are_read(written, content, name):
    check(patient_table(written(content, name)))


def test_tables_in_memory_are_read():
    table = pd.DataFrame(ROWS, columns=["patient", "response", "age"])
    check(patient_table(table))
    check(patient_table(table.set_index("patient")))
    check(patient_table(table.rename(columns={"patient": "case"}), "case"))
    levels = table.assign(response=pd.Categorical(table["response"], ["no", "yes"], ordered=True))
    assert patient_table(levels).rows["response"].cat.ordered


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("patient,response\n", "has no rows"),
        ("name,response\np1,yes\n", "no column 'patient' with the patients; it has name, response"),
        ("patient,a,a \np1,1,2\n", "several columns 'a'"),
        ("patient,a\np1,1\n,2\n", "row 2 has no patient"),
        ("patient,age\np1,1\np1,2\n", "patient p1 has 2 rows, which differ in age"),
        ("patient,a\np1,1,2,3\np2,4\n", "row 1 has 4 cells, and there are 2 names"),
        ("slide,patient\ns1,p1\ns1,p2\n", r"slide s1 is of several patients \(p1, p2\)"),
        (b"PK\0\0", "is no text"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_one_line(written, content, said):
    with pytest.raises(InputError, match=said) as error:
        patient_table(written(content))
    assert "patients.csv: " in str(error.value)


def test_other_objects_and_missing_files_are_no_tables(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read .*No such file"):
        patient_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="save it as CSV"):
        patient_table(tmp_path / "table.xlsx")
    with pytest.raises(InputError, match="is a dict"):
        patient_table({})


def test_slides_of_a_patient_may_have_rows_of_their_own(written):
    table = patient_table(written("slide,patient,age\ns1,p1,7\ns2,p1,7\ns3,p2,8\n"))
    assert table.patient_of == {"s1": "p1", "s2": "p1", "s3": "p2"}
    assert table.rows["age"].to_dict() == {"p1": 7.0, "p2": 8.0}
    assert list(table.rows) == ["age"]


def names(*patients):
    return patient_table(pd.DataFrame({"patient": patients, "x": range(len(patients))}))


def test_names_that_spreadsheets_have_changed_are_matched():
    assert names("7", "12", "P1 ").match(["007", "12.0", "p1", "p9"]) == {
        "007": "7", "12.0": "12", "p1": "P1",
    }  # fmt: skip
    assert names("p 1").match(["P  1"]) == {"P  1": "p 1"}


def test_names_that_are_not_unique_are_matched_only_exactly():
    assert names("7", "007").match(["7.0", "007"]) == {"007": "007"}
    assert names("7").match(["7", "07"]) == {"7": "7"}
    assert names("a").match(["A", " a"]) == {}


def test_columns_are_found_in_another_case():
    table = patient_table(pd.DataFrame({"patient": ["p1"], "OS Months": [3], "sex": ["f"]}))
    assert table.column("os_months", "time") == "OS Months"
    with pytest.raises(InputError, match=r"no column 'Response' \(target\); it has OS Months, sex"):
        table.column("Response", "target")


@pytest.mark.parametrize("word", ["unknown", "Na", ".", "?", "-", "-9", "[Not Available]", "#REF!"])
def test_what_people_write_for_a_missing_value_is_none(written, word):
    table = patient_table(written(f"patient;r;age\na;yes;{word}\nb;no;61,5\nc;{word};50\n"))
    assert table.rows["r"].tolist() == ["yes", "no", None]
    np.testing.assert_array_equal(table.rows["age"], [np.nan, 61.5, 50.0])
    assert table.notes["r"] == [f"r: {word} taken for missing"]
    assert table.notes["age"] == [f"age: {word} taken for missing"]


def test_minus_beside_plus_and_negative_numbers_stay(written):
    table = patient_table(written("patient,er,change\na,+,-9\nb,-,-3\nc,-,4\n"))
    assert table.rows["er"].tolist() == ["+", "-", "-"]
    assert table.rows["change"].tolist() == [-9, -3, 4]


def test_suspicious_values_are_noted(written):
    table = patient_table(written("patient,age,site\na,999,North\nb,60,north\n"))
    assert table.rows["age"].tolist() == [999, 60]
    assert "999 somewhere, and at most 60" in table.notes["age"][0]
    assert "North, north count as different" in table.notes["site"][0]


def test_a_separator_that_is_told_and_levels_of_an_index(written):
    assert patient_table(written("sep=|\npatient|r\na|yes\n")).rows["r"].tolist() == ["yes"]
    table = pd.DataFrame({"patient": ["a"], "n": [1], "r": ["yes"]}).set_index(["patient", "n"])
    assert patient_table(table).rows["r"].tolist() == ["yes"]
    with pytest.raises(InputError, match="first row must name the columns"):
        patient_table(written("Our cohort,,\npatient,r,x\na,yes,1\n"))
