"""Values become colors."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("bokeh")

from sagefm.explore.coloring import MISSING, SpotValues, values_of

GRAY = (int(MISSING[1:], 16) << 8) | 255


def test_numbers_go_along_the_scale_and_missing_ones_are_gray():
    values = SpotValues("g", "", "number", np.array([0.0, 1.0, np.nan, np.inf, 0.5]))
    rgba = values.rgba()
    assert values.bounds()[0] == 0
    assert list(rgba[2:4]) == [GRAY, GRAY]
    assert len(set(rgba[[0, 1, 4]])) == 3


def test_no_change_is_white_and_the_scale_is_symmetric():
    values = SpotValues("g", "", "change", np.array([-2.0, 0.0, 1.0]), limit=2.0)
    assert values.bounds() == (-2, 2)
    red, green, blue = ((int(values.rgba()[1]) >> shift) & 255 for shift in (24, 16, 8))
    assert min(red, green, blue) > 235


@pytest.mark.parametrize(
    "column", [[np.nan] * 3, [np.inf] * 3, [2.0] * 3, [1.7e18] * 3, [-1e300] * 3]
)
def test_columns_without_a_range_are_drawn(column):
    values = values_of(pd.Series(column), "n", "", None)
    low, high = values.bounds()
    assert low < high
    assert values.rgba().shape == (3,)


def test_classes_keep_the_colors_of_the_slide():
    column = pd.Series(pd.Categorical(["b", "a", None]))
    values = values_of(column, "c", "", ["#ff0000", "#00ff00"])
    assert list(values.rgba()) == [0x00FF00FF, 0xFF0000FF, GRAY]
    assert values.text() == ["b", "a", ""]
    assert values_of(column, "c", "", ["nonsense"]).rgba()[0] != GRAY
    for shades in (["none", "C0"], ["#ff000080", "0.5"], ["#abc", "tab:blue"]):  # not Bokeh's
        assert all(len(shade) == 7 for shade in values_of(column, "c", "", shades).shades)


def test_any_column_becomes_classes():
    for column in ([1, "a", None], [True, False, True], pd.to_datetime(["2020", None, "2021"])):
        assert values_of(pd.Series(column), "c", "", None).is_class


def test_of_many_classes_the_largest_are_in_the_legend():
    column = pd.Series([f"c{i:03}" for i in range(100)] + ["c099"] * 5)
    names, shades = values_of(column, "c", "", None).legend()
    assert len(names) == len(shades) == 40
    assert "c099" in names
