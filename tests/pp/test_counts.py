import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix
from tests.pp.folders import a_slide

from sagefm import InputError
from sagefm.pp.counts import Counts, coordinates, counts, find_coordinates, sum_duplicates
from sagefm.pp.sections import section_codes


def logged(slide: AnnData) -> csr_matrix:
    return csr_matrix(np.log1p(slide.X.toarray()))


def test_counts_in_x_are_taken_without_a_copy_and_without_a_word(caplog):
    slide = a_slide()
    found = counts(slide)
    assert found.where == "X"
    assert found.matrix.dtype == np.float32
    assert np.shares_memory(found.matrix.data, slide.X.data)
    assert not caplog.records


@pytest.mark.parametrize("make", [np.asarray, csc_matrix, lambda x: csr_matrix(x.astype(np.int64))])
def test_dense_csc_and_integers_become_csr_float32(make):
    slide = a_slide()
    dense = slide.X.toarray()
    slide.X = make(dense)
    before = type(slide.X)
    found = counts(slide)
    assert isinstance(found.matrix, csr_matrix)
    assert found.matrix.dtype == np.float32
    np.testing.assert_array_equal(found.matrix.toarray(), dense)
    assert type(slide.X) is before


def test_unsorted_indices_are_sorted_in_a_copy():
    slide = a_slide()
    x = slide.X
    slide.X = csr_matrix((x.data[::-1].copy(), x.indices[::-1].copy(), x.indptr), shape=x.shape)
    indices = slide.X.indices.copy()
    assert counts(slide).matrix.has_sorted_indices
    np.testing.assert_array_equal(slide.X.indices, indices)


def test_a_view_of_a_slide_has_counts():
    found = counts(a_slide()[:5])
    assert type(found.matrix) is csr_matrix
    assert found.matrix.shape[0] == 5


def test_counts_are_found_in_the_layer_and_that_is_told(caplog):
    slide = a_slide()
    slide.layers["counts"] = slide.X.copy()
    slide.X = logged(slide)
    assert counts(slide).where == "layers['counts']"
    assert "X holds values from" in caplog.text
    assert "looks log-normalized" in caplog.text


def test_counts_are_found_in_raw_with_its_own_genes(caplog):
    slide = a_slide()
    whole = slide.copy()
    slide = slide[:, :3].copy()
    slide.raw = whole
    slide.X = logged(slide)
    found = counts(slide)
    assert found.where == "raw"
    assert list(found.var.index) == list(whole.var_names)
    assert found.matrix.shape == whole.shape
    assert caplog.records[0].levelno == logging.WARNING


def test_a_named_layer_is_taken_even_if_x_holds_counts():
    slide = a_slide()
    slide.layers["spliced"] = slide.X * 2
    assert counts(slide, "spliced").matrix.sum() == 2 * slide.X.sum()
    assert counts(slide, "X").where == "X"


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    slide = a_slide()
    slide.layers["spliced"] = slide.X
    with pytest.raises(InputError, match=r"no layer 'raw'; .* X, layers\['spliced'\]"):
        counts(slide, "raw")


def test_log_normalized_values_are_refused_with_their_range_and_the_layer_that_has_counts():
    slide = a_slide()
    slide.layers["umi"] = slide.X.copy()
    slide.X = logged(slide)
    match = r"X holds values from .* to 4\.\d+ .*log-normalized.*pass layer='umi'"
    with pytest.raises(InputError, match=match):
        counts(slide)


def test_log_normalized_values_without_any_counts_name_what_else_was_tried():
    slide = a_slide()
    slide.X = logged(slide)
    with pytest.raises(InputError, match=r"add a layer that holds them and pass layer="):
        counts(slide)
    slide.layers["scaled"] = slide.X * 0.5
    with pytest.raises(InputError, match=r"layers\['scaled'\] hold no counts either"):
        counts(slide)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.nan, "X holds 1 NaN or infinite value, not raw"),
        (np.inf, "X holds 1 NaN or infinite value, not raw"),
        (-3.0, r"negative values \(from -3 to"),
        (0.5, "not integers"),
    ],
)
def test_one_bad_value_is_enough(value, match):
    slide = a_slide()
    slide.X.data[7] = value
    with pytest.raises(InputError, match=match) as caught:
        counts(slide)
    assert "\n" not in str(caught.value)


def test_no_matrix_at_all():
    slide = AnnData(obs=pd.DataFrame(index=["a", "b"]))
    with pytest.raises(InputError, match="no X"):
        counts(slide)


def test_duplicates_are_summed_in_order_of_first_occurrence():
    var = pd.DataFrame(
        {"gene_ids": ["e1", "e2", "e3", "e1", "e4"], "n": range(5)}, index=list("abaac")
    )
    matrix = csr_matrix(np.arange(10, dtype=np.float32).reshape(2, 5))
    summed = sum_duplicates(Counts(matrix, var, "X"))
    assert list(summed.var.index) == list("abc")
    assert list(summed.var["gene_ids"]) == ["e1;e3", "e2", "e4"]
    assert list(summed.var["n"]) == [0, 1, 4]
    np.testing.assert_array_equal(summed.matrix.toarray(), [[5, 1, 4], [20, 6, 9]])
    assert summed.matrix.has_canonical_format
    assert summed.note == "1 gene name is duplicated (a): their counts were summed"


def test_one_slide_is_all_zeros():
    codes = section_codes(a_slide())
    assert codes.dtype == np.int64
    assert not codes.any()


def test_slide_key_numbers_slides_by_first_occurrence():
    slide = a_slide()
    slide.obs["section_name"] = ["b"] * 10 + ["a"] * 20
    assert list(section_codes(slide, "section_name")) == [0] * 10 + [1] * 20


@pytest.mark.parametrize("column", ["slide", "library_id", "sample", "sample_id", "batch"])
def test_evidently_several_slides_are_refused_with_the_key(column):
    slide = a_slide()
    slide.obs[column] = pd.Categorical(["b"] * 10 + ["a"] * 20)
    match = rf"obs\['{column}'\] has 2 values \(b, a\); pass slide_key='{column}'"
    with pytest.raises(InputError, match=match):
        section_codes(slide)


@pytest.mark.parametrize("values", [["a"] * 30, [str(i) for i in range(30)]])
def test_a_column_with_one_value_or_one_per_spot_is_no_slide(values):
    slide = a_slide()
    slide.obs["sample"] = values
    assert not section_codes(slide).any()


def test_several_libraries_are_several_slides_unless_a_column_says_one():
    slide = a_slide()
    slide.uns["spatial"] = {"one": {"images": {}}, "is_single": True}
    assert not section_codes(slide).any()
    slide.uns["spatial"]["two"] = {"images": {}}
    with pytest.raises(InputError, match=r"2 libraries \(one, two\)"):
        section_codes(slide)
    slide.obs["library_id"] = "one"
    assert not section_codes(slide).any()


def test_what_read_recorded_is_used():
    slide = a_slide()
    slide.obs["sample"] = ["b"] * 10 + ["a"] * 20
    slide.uns["sagefm"] = {"read": {"slide_key": "sample"}}
    assert section_codes(slide).sum() == 20


def test_a_slide_key_must_be_a_column_without_gaps():
    slide = a_slide()
    slide.obs["sample"] = ["a", None] * 15
    with pytest.raises(InputError, match=r"no obs column 'sampel'.*columns are: sample"):
        section_codes(slide, "sampel")
    with pytest.raises(InputError, match="no value for 15 spots"):
        section_codes(slide, "sample")


def test_coordinates_are_float64_x_and_y():
    slide = a_slide()
    xy = slide.obsm["spatial"]
    slide.obsm["spatial"] = np.c_[xy, xy[:, 0]].astype(np.float32)
    assert coordinates(slide).dtype == np.float64
    np.testing.assert_array_equal(coordinates(slide), xy)
    slide.obsm["spatial"] = pd.DataFrame(xy, index=slide.obs_names, columns=["x", "y"])
    np.testing.assert_array_equal(coordinates(slide), xy)


def test_missing_coordinates_come_with_the_remedy():
    slide = a_slide()
    xy = slide.obsm.pop("spatial")
    slide.obsm["X_pca"] = xy
    with pytest.raises(InputError, match=r"obsm\['spatial'\] is missing; put .*X_pca"):
        coordinates(slide)
    slide.obs["pxl_col_in_fullres"], slide.obs["pxl_row_in_fullres"] = xy.T
    with pytest.raises(InputError, match=r"pxl_col_in_fullres.*to_numpy\(\)") as caught:
        coordinates(slide)
    remedy = str(caught.value).partition("set ")[2]
    exec(remedy, {"slide": slide})
    np.testing.assert_array_equal(coordinates(slide), xy)


def test_coordinates_must_be_finite_different_and_numbers():
    slide = a_slide()
    slide.obsm["spatial"][3, 1] = np.nan
    with pytest.raises(InputError, match="1 spot without coordinates"):
        coordinates(slide)
    slide.obsm["spatial"] = np.ones((30, 2))
    with pytest.raises(InputError, match="all spots have the same coordinates"):
        coordinates(slide)
    slide.obsm["spatial"] = np.ones((30, 1))
    with pytest.raises(InputError, match="not a table"):
        coordinates(slide)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("x", "y"), ("X", "Y"), ("imagecol", "imagerow"), ("image_col", "image_row"),
        ("pxl_col_in_fullres", "pxl_row_in_fullres"), ("array_col", "array_row"), ("col", "row"),
        ("column", "row"), ("x_centroid", "y_centroid"), ("center_x", "center_y"),
        ("spatial_x", "spatial_y"), ("xcoord", "ycoord"), ("pixel_x", "pixel_y"),
    ],
)  # fmt: skip
def test_coordinates_of_a_table_are_found_by_name(x, y):
    slide = a_slide()
    xy = slide.obsm["spatial"]
    for columns in ([x, y], [y, x], ["tissue", y, "other", x]):
        table = pd.DataFrame(7.0, slide.obs_names, columns)
        table[x], table[y] = xy.T
        slide.obsm["spatial"] = table
        np.testing.assert_array_equal(coordinates(slide), xy)


def test_pixels_come_before_positions_in_the_array():
    slide = a_slide()
    xy = slide.obsm["spatial"]
    table = pd.DataFrame(3.0, slide.obs_names, ["row", "col", "imagerow", "imagecol"])
    table["imagecol"], table["imagerow"] = xy.T
    slide.obsm["spatial"] = table
    np.testing.assert_array_equal(coordinates(slide), xy)


def test_names_that_do_not_tell_x_are_told_or_refused():
    slide = a_slide()
    xy = slide.obsm["spatial"]
    for columns in (["0", "1"], ["dim1", "dim2"], ["spatial_1", "spatial_2"]):
        slide.obsm["spatial"] = pd.DataFrame(xy, slide.obs_names, columns)
        assert find_coordinates(slide)[1] == ""
    slide.obsm["spatial"] = pd.DataFrame(xy, slide.obs_names, ["left", "down"])
    found, note = find_coordinates(slide)
    np.testing.assert_array_equal(found, xy)
    assert note == "the columns of obsm['spatial'] do not say which is x: 'left' is taken"
    slide.obsm["spatial"] = slide.obsm["spatial"].assign(area=1.0, depth=2.0)
    with pytest.raises(InputError, match=r"which are x and y \(left, down, area, depth\); name"):
        coordinates(slide)


def test_coordinates_of_other_types_are_numbers():
    slide = a_slide()
    xy = slide.obsm["spatial"]
    for dtype in (np.int32, object, str, np.float32):
        slide.obsm["spatial"] = xy.astype(dtype)
        np.testing.assert_array_equal(coordinates(slide), xy)
    table = pd.DataFrame(xy.astype(int), slide.obs_names, ["x", "y"]).astype("Int64")
    slide.obsm["spatial"] = table
    np.testing.assert_array_equal(coordinates(slide), xy)
    slide.obsm["spatial"] = table.mask(table == xy[0, 0])
    with pytest.raises(InputError, match="without coordinates"):
        coordinates(slide)
    for wrong in (xy * 1j, xy.astype("M8[s]"), np.full((30, 2), "a")):
        slide.obsm["spatial"] = wrong
        with pytest.raises(InputError, match="not a table of spots × 2 numbers"):
            coordinates(slide)


def test_coordinates_out_of_scale_are_refused_with_their_place():
    slide = a_slide()
    slide.obsm["spatial"][5] = 1e200
    with pytest.raises(InputError, match=r"obsm\['spatial'\]: coordinates up to 1e\+200"):
        coordinates(slide)
