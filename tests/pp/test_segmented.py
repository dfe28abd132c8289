import gzip
import json

import numpy as np
import pytest
from tests.pp.folders import Section, hd, told, write_h5, write_pictures

from sagefm import InputError, read
from sagefm.pp.segmented import read_cells

MATRIX = "filtered_feature_cell_matrix.h5"
GEOJSON = "cell_segmentations.geojson"


def square(x, y, half=4.0):
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    return [[x + half * i, y + half * j] for i, j in corners]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def collection(geometries, first=1):
    features = [
        {"type": "Feature", "properties": {"cell_id": number}, "geometry": geometry}
        for number, geometry in enumerate(geometries, first)
    ]
    return {"type": "FeatureCollection", "features": features}


def cells(n_spots=30):
    section = Section(n_spots)
    section.barcodes = [f"cellid_{number + 1:09d}-1" for number in range(n_spots)]
    return section


def segmented(folder, section, document=None):
    write_h5(folder / MATRIX, section)
    write_pictures(folder / "spatial")
    squares = [polygon(square(x, y)) for x, y in section.spatial.tolist()]
    (folder / GEOJSON).write_text(json.dumps(document or collection(squares)))
    return folder


def test_cells_have_the_centers_of_their_polygons(tmp_path):
    section = cells()
    folder = segmented(tmp_path / "run" / "outs" / "segmented_outputs", section)
    for named in (folder, folder / MATRIX, folder.parent, folder.parent.parent):
        slide = read(named)
        assert list(slide.obs_names) == section.barcodes
        np.testing.assert_array_equal(slide.X.toarray(), section.counts)
        np.testing.assert_allclose(slide.obsm["spatial"], section.spatial)
        np.testing.assert_allclose(slide.obs["area_px"], 64)
        (library,) = slide.uns["spatial"].values()
        assert library["scalefactors"]["microns_per_pixel"] == 0.25
        assert told(slide) == ""


def test_bins_come_first_and_the_cells_are_noted(tmp_path):
    folder = segmented(hd(tmp_path, (16,)) / "segmented_outputs", cells())
    slide = read(tmp_path)
    assert slide.n_obs == 36
    assert f"has segmented cells too; for them name {folder}" in told(slide)
    assert told(read(tmp_path / "binned_outputs" / "square_016um")) == ""


@pytest.mark.parametrize(
    ("geometry", "center", "area"),
    [
        (polygon(square(10, 20)[::-1]), (10, 20), 64),
        (polygon(square(10, 20)[:-1]), (10, 20), 64),
        (polygon([[*corner, 5] for corner in square(10, 20)]), (10, 20), 64),
        (polygon([[0, 0], [6, 0], [0, 3]]), (2, 1), 9),
        (polygon(square(1e5, 1e5, 6), square(1e5 + 3, 1e5, 3)), (1e5 - 1, 1e5), 108),
        (
            {"type": "MultiPolygon", "coordinates": [[square(0, 0, 1)], [square(9, 0, 2)]]},
            (7.2, 0),
            20,
        ),
        (polygon([[3, 4]]), (3, 4), 0),
        (polygon([[0, 0], [4, 0], [0, 0]]), (2, 0), 0),
        (polygon([[0, 0], [4, 4], [4, 0], [0, 4]]), (2, 2), 0),
    ],
    ids=[
        *("clockwise", "open", "three coordinates", "triangle", "hole", "two parts"),
        *("point", "line", "crossed"),
    ],
)
def test_the_center_of_a_polygon(tmp_path, geometry, center, area):
    (tmp_path / GEOJSON).write_text(json.dumps(collection([polygon(square(0, 0)), geometry])))
    table = read_cells(tmp_path / GEOJSON, [])
    assert list(table.index) == ["cellid_000000001-1", "cellid_000000002-1"]
    cell = table.iloc[1]
    found = cell["pxl_col_in_fullres"], cell["pxl_row_in_fullres"], cell["area_px"]
    np.testing.assert_allclose(found, (*center, area), atol=1e-6)


def test_cells_and_polygons_that_lack_each_other(tmp_path):
    section = cells()
    shapes = [polygon(square(x, y)) for x, y in section.spatial.tolist()]
    shapes[0], shapes[1] = None, polygon()
    document = collection([*shapes[:-1]])
    document["features"] += collection([polygon(square(0, 0))], 99)["features"]
    slide = read(segmented(tmp_path, section, document))
    np.testing.assert_allclose(slide.obsm["spatial"], section.spatial[2:-1])
    assert "has no polygon for 2 cells (cellid_000000001-1, cellid_000000002-1)" in told(slide)
    assert "3 of 30 barcodes have no position in cell_segmentations.geojson" in told(slide)


def test_loose_files_with_a_prefix(tmp_path):
    section = cells()
    segmented(tmp_path / "from", section)
    (tmp_path / "from" / MATRIX).rename(tmp_path / f"GSM1_{MATRIX}")
    stored = gzip.compress((tmp_path / "from" / GEOJSON).read_bytes())
    (tmp_path / f"GSM1_{GEOJSON}.gz").write_bytes(stored)
    np.testing.assert_allclose(read(tmp_path / "GSM1").obsm["spatial"], section.spatial)


def test_a_raw_matrix_of_cells_has_no_spots_off_the_tissue(tmp_path):
    folder = segmented(tmp_path, cells())
    (folder / MATRIX).rename(folder / "raw_feature_cell_matrix.h5")
    slide = read(folder)
    assert slide.n_obs == 30
    assert told(slide) == ""


def test_cells_without_polygons_are_refused(tmp_path):
    (segmented(tmp_path, cells()) / GEOJSON).unlink()
    with pytest.raises(
        InputError, match=r"no cell_segmentations\.geojson for filtered_feature_cell"
    ):
        read(tmp_path)


def damaged():
    fine = polygon(square(0, 0))
    twice = collection([fine, fine])
    twice["features"][1]["properties"]["cell_id"] = 1
    nameless = collection([fine])
    nameless["features"][0]["properties"] = {"cell_id": "x"}
    return {
        "a point": (collection([{"type": "Point", "coordinates": [1, 2]}]), "is a Point"),
        "numbers": (collection([polygon([1, 2, 3])]), "not x and y"),
        "text": (collection([polygon([["a", "b"]])]), "could not convert"),
        "nan": (collection([polygon([[float("nan"), 1]])]), "not in pixels"),
        "far": (collection([polygon([[1e300, 1]])]), "not in pixels"),
        "geometries": (collection([{"type": "GeometryCollection"}]), "no coordinates"),
        "twice": (twice, r"1 cell more than once \(1\)"),
        "nameless": (nameless, "no cell_id, or 'x'"),
        "a list": ([1, 2], "no FeatureCollection"),
        "no features": ({"type": "FeatureCollection"}, "no FeatureCollection"),
    }


@pytest.mark.parametrize("fault", damaged())
def test_a_damaged_segmentation_is_refused(tmp_path, fault):
    document, words = damaged()[fault]
    (tmp_path / GEOJSON).write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"cell_segmentations\.geojson.*{words}") as caught:
        read_cells(tmp_path / GEOJSON, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b'{"type": "Feat', b"[" * 100_000, b'{"a": "\xff"}'])
def test_what_is_no_json_is_refused(tmp_path, data):
    (tmp_path / GEOJSON).write_bytes(data)
    with pytest.raises(InputError, match=r"cell_segmentations\.geojson cannot be read"):
        read_cells(tmp_path / GEOJSON, [])
