"""Anything may be in uns: what is of another type than expected is ignored."""

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm._uns import positive, provenance, record, texts
from sagefm.pp import check, simulate, summarize
from sagefm.report import contents, remarks

JUNK = [None, 3, -1.5, np.nan, "x", True, np.arange(4), np.array(["a", "b"]), b"ab", [1, "a"], {}]
PLACES = [
    ["spatial"],
    ["spatial", "lib"],
    ["spatial", "lib", "images"],
    ["spatial", "lib", "scalefactors"],
    ["spatial", "lib", "scalefactors", "microns_per_pixel"],
    ["sagefm"],
    ["sagefm", "read"],
    ["sagefm", "read", "told"],
    ["sagefm", "read", "lost"],
    ["sagefm", "read", "slide_key"],
    ["sagefm", "read", "counts"],
    ["spot_pitch_um"],
    ["spatialdata_attrs"],
    ["spatialdata_attrs", "region_key"],
]


def with_junk(place, value):
    slide = simulate(30, seed=1, genes=[f"GENE{i}" for i in range(9)], n_couplings=1)
    slide.uns = {}
    inner = slide.uns
    for key in place[:-1]:
        inner = inner.setdefault(key, {})
    inner[place[-1]] = value
    return slide


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_nothing_in_uns_is_an_error(place):
    for value in JUNK:
        slide = with_junk(place, value)
        assert not [found for found in check(slide) if found.level == "error"]
        assert contents(slide)
        remarks(slide)
        um_per_px = summarize(slide)["um_per_px"]
        assert um_per_px is None or um_per_px > 0


@pytest.mark.parametrize("value", ["x", {"read": "x"}, {"read": {"told": 3, "lost": "x"}}])
def test_a_slide_is_read_and_its_record_written_whatever_was_there(tmp_path, value):
    slide = with_junk(["sagefm"], value)
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = sagefm.read(tmp_path / "slide.h5ad")
    assert again.uns["sagefm"]["read"]["counts"] == "X"
    left_out = "uns['sagefm'] is no record of sagefm and is left out"
    assert (left_out in again.uns["sagefm"]["read"]["told"]) is (value == "x")
    again.write_h5ad(tmp_path / "again.h5ad")
    assert sagefm.read(tmp_path / "again.h5ad").uns["sagefm"]["read"]["counts"] == "X"


def test_results_are_recorded_in_place_of_anything(slide):
    slide = slide.copy()
    slide.uns["sagefm"] = "x"
    record(slide, "embed", {"key": "X_sagefm"})
    assert provenance(slide, "embed", key=str) == {"key": "X_sagefm"}
    assert provenance(slide, "embed", key=int) == {}
    slide.uns["sagefm"]["other"] = 3
    record(slide, "domains", {})
    assert set(slide.uns["sagefm"]) == {"embed", "other", "domains"}


@pytest.mark.parametrize("made", ["x", {"key": 3}, {"key": "domain", "spots": [1]}])
def test_pictures_of_results_that_are_none_are_refused(slide, made):
    slide = slide.copy()
    slide.uns["sagefm"] = {"rare": made, "imputed": made}
    with pytest.raises(sagefm.InputError, match=r"run sagefm\.tl\.rare first"):
        sagefm.pl.rare(slide)
    with pytest.raises(sagefm.InputError, match=r"run sagefm\.tl\.impute first"):
        sagefm.pl.imputed(slide)


def test_numbers_and_texts():
    for value in (2, 2.0, np.float32(2), np.array(2), np.array([2])):
        assert positive(value) == 2
    for value in (0, -1, np.nan, np.inf, "2", True, None, [1, 2], {}, pd.DataFrame()):
        assert positive(value) is None
    assert texts(np.array(["a", "b"])) == texts(["a", 3, "b"]) == ["a", "b"]
    assert texts("a") == ["a"]
    assert texts(3) == texts({"a": 1}) == texts(None) == texts(np.array("a")) == []
