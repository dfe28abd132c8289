"""How many micrometers a unit of the coordinates is, from what a slide states."""

import numpy as np
import pytest

from sagefm.pp import simulate
from sagefm.pp.check import summarize


@pytest.fixture
def visium():
    """The hexagonal grid of Visium, 200 pixels to 100 µm, and nothing that says so."""
    slide = simulate(120)
    slide.uns = {}
    return slide


def scale(slide, **factors):
    slide.uns["spatial"] = {"a": {"images": {}, "scalefactors": factors}}
    return summarize(slide)["um_per_px"]


@pytest.mark.parametrize("diameter", [110.0, 130.0])  # 55 µm, and 65 µm as Space Ranger writes it
def test_spots_of_visium_are_100_micrometers_apart(visium, diameter):
    assert scale(visium, spot_diameter_fullres=diameter) == pytest.approx(0.5)


def test_what_is_stated_comes_first(visium):
    assert scale(visium, spot_diameter_fullres=110.0, microns_per_pixel=0.7) == 0.7
    assert scale(visium, spot_diameter_fullres=32.0, bin_size_um=8.0) == 0.25
    visium.uns["spot_pitch_um"] = 50.0
    assert scale(visium, spot_diameter_fullres=110.0) == pytest.approx(0.25)


def test_the_diameter_of_other_spots_says_nothing(visium):
    assert scale(visium, spot_diameter_fullres=199.0) is None
    row, column = np.divmod(np.arange(120), 12)
    visium.obsm["spatial"] = 200.0 * np.column_stack([column, row])
    assert scale(visium, spot_diameter_fullres=100.0) is None  # a legacy array has this ratio too


def test_libraries_that_contradict_say_nothing(visium):
    library = {"images": {}, "scalefactors": {"microns_per_pixel": 1.0}}
    other = {"images": {}, "scalefactors": {"microns_per_pixel": 2.0}}
    visium.uns["spatial"] = {"a": library, "b": other}
    assert summarize(visium)["um_per_px"] is None
