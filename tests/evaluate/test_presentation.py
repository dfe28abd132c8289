"""What is shown of a table, and what stays in the files."""

import pandas as pd

from sagefm.evaluate.presentation import MAX_COLUMNS, chapters
from sagefm.evaluate.result import Result


def table(**columns):
    rows = pd.DataFrame({"method": ["base", "ours"], "kind": ["baseline", "model"]})
    return rows.assign(n_slides=[6, 6], n_patients=[4, 4], unit="patient", **columns)


def shown(protocol, summary):
    [chapter] = chapters({protocol: Result(protocol, {"caption": summary})}).values()
    [one] = chapter.tables
    return one


def test_a_wide_table_shows_eight_columns_and_its_numbers_of_slides():
    metrics = ("mse", "deviance", "excess", "share_left", "r_within_10", "r_within_30")
    more = ("r_depth_removed_10", "r_pooled_10", "significant", "beats", "n_ties")
    wide = table(**dict.fromkeys((*metrics, *more), 0.25), verdict=["", "beats base (+0.1)"])
    wide["mse_low"], wide["mse_high"] = 0.2, [0.3, float("nan")]
    one = shown("recovery", wide)
    assert len(one.header) == MAX_COLUMNS
    assert one.header[:3] == ["method", "kind", "mse"]
    assert one.header[-1] == "verdict"
    assert "significant" not in one.header
    assert one.remark == "6 slides of 4 patients; intervals over patients"
    assert list(map(str, one.rows[0][:3])) == ["base", "baseline", "0.2500 (0.2000 to 0.3000)"]
    assert one.rows[1][-1].text == "beats base (+0.1)"
    assert one.kinds == ["baseline", "model"]


def test_rows_of_other_slides_say_so():
    uneven = table(ari=[0.5, float("nan")]).assign(n_slides=[6, 1])
    one = shown("domains", uneven)
    assert [row[0].text for row in one.rows] == ["base (6 slides)", "ours (1 slide)"]
    assert one.header == ["method", "kind", "ari"]
    assert one.rows[1][2].text == ""
    assert one.remark == ""


def test_small_p_values_and_tables_of_an_unknown_protocol():
    one = shown("subtype", table(auroc=0.5, p=0.00049, q=1.0))
    assert [cell.text for cell in one.rows[0][2:]] == ["0.500", "0.00049", "1"]
    assert shown("unheard of", table(new=0.5)).header == ["method", "kind", "new"]
