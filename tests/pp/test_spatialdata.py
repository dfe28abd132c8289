"""SpatialData objects, and folders that the installed version of the library writes and reads."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm import InputError

with warnings.catch_warnings():  # the library has warnings of many others when it is imported
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="the extra spatialdata is not installed"
    )
    from spatialdata.models import PointsModel, ShapesModel, TableModel
    from spatialdata.transformations import (
        Affine,
        Identity,
        MapAxis,
        Scale,
        Sequence,
        Translation,
        set_transformation,
    )

from tests.pp.spatialdatas import PIXEL_UM, N, counts, visium, visium_hd, write, xenium

pytestmark = [  # of the library itself
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning"),
    pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:SpatialData is not stored in the most current:UserWarning"),
    pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame:UserWarning"),
]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("sagefm").setLevel("ERROR")


@pytest.fixture(scope="module")
def places():
    return counts()[1]


def told(slide):
    return "; ".join(slide.uns["sagefm"]["read"]["told"])


def same(a, b):
    np.testing.assert_allclose(a.obsm["spatial"], b.obsm["spatial"], rtol=1e-12)
    np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())
    assert a.uns["spatial"].keys() == b.uns["spatial"].keys()
    for name, library in a.uns["spatial"].items():
        other = b.uns["spatial"][name]
        np.testing.assert_array_equal(library["images"]["hires"], other["images"]["hires"])
        assert library["scalefactors"] == pytest.approx(other["scalefactors"])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("make", "table"), [(visium, None), (visium_hd, "square_008um"), (xenium, None)]
)
def test_an_object_and_its_folder_give_the_same_slide(tmp_path, places, make, table, version):
    whole = make()
    held = sagefm.read(whole, table=table)
    np.testing.assert_allclose(held.obsm["spatial"], places)
    same(held, sagefm.read(write(whole, tmp_path / "a.zarr", version), table=table))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("make", [visium, xenium])
def test_results_go_round(tmp_path, make, version):
    path = write(make(), tmp_path / "a.zarr", version)
    slide = sagefm.read(path)
    sagefm.tl.domains(slide, 2, method="kmeans", use_rep="spatial")
    sagefm.pp.write_back(slide, path)
    whole = spatialdata.read_zarr(path)
    table = whole.tables["table"]
    TableModel().validate(table)
    assert (table.obs["sagefm_domain"].astype(str) == slide.obs["sagefm_domain"].astype(str)).all()
    assert set(map(str, whole.shapes)) == set(map(str, make().shapes))
    values = spatialdata.get_values(
        "sagefm_domain",
        sdata=whole,
        table_name="table",
        element_name=table.uns["spatialdata_attrs"]["region"],
    )
    assert len(values) == N
    # The library writes its own things into the table that sagefm has written.
    whole.tables["table"].obs["mine"] = 1
    whole.delete_element_from_disk("table")
    whole.write_element("table")
    assert {"mine", "sagefm_domain"} <= set(sagefm.read(path).obs)


def test_results_in_an_object():
    whole = visium()
    before = whole.tables["table"]
    slide = sagefm.read(whole)
    assert not [key for key in before.obs if "sagefm" in key]
    slide = slide[5:].copy()
    slide.obs["sagefm_domain"] = pd.Categorical(["1"] * slide.n_obs)
    slide.obsm["X_sagefm"] = np.ones((slide.n_obs, 3), dtype=np.float32)
    sagefm.pp.write_back(slide, whole)
    assert whole.tables["table"] is before
    assert before.obs["sagefm_domain"].isna().sum() == 5
    assert np.isnan(before.obsm["X_sagefm"][:5]).all()
    TableModel().validate(before)
    whole.tables["again"] = before.copy()
    with pytest.raises(InputError, match=r"holds 2 tables \(.*\); pass table="):
        sagefm.pp.write_back(slide, whole)


@pytest.mark.parametrize("held", [True, False])
def test_transformations_are_followed(tmp_path, places, held):
    whole = xenium()
    del whole.images["morphology_focus"]
    turned = Sequence(
        [
            Scale([1 / PIXEL_UM] * 2, axes=("x", "y")),
            Affine(
                [[0, -1, 800], [1, 0, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")
            ),
            MapAxis({"x": "y", "y": "x"}),
            Translation([10, 20], axes=("x", "y")),
        ]
    )
    set_transformation(whole.shapes["cell_circles"], turned, "global")
    slide = sagefm.read(whole if held else write(whole, tmp_path / "a.zarr"))
    expected = spatialdata.transform(whole.shapes["cell_circles"], to_coordinate_system="global")
    np.testing.assert_allclose(slide.obsm["spatial"][:, 0], expected.geometry.x)
    np.testing.assert_allclose(slide.obsm["spatial"][:, 1], expected.geometry.y)
    np.testing.assert_allclose(slide.obsm["spatial"], [[10, 820]] + places * [1, -1])


def test_centers_are_those_of_the_library():
    whole = xenium(region="cell_labels")
    slide = sagefm.read(whole)
    centers = spatialdata.get_centroids(whole.labels["cell_labels"]).compute()
    centers = centers.loc[slide.obs["instance"].to_numpy()]
    np.testing.assert_allclose(slide.obsm["spatial"], centers[["x", "y"]])
    whole = visium_hd()
    slide = sagefm.read(whole, table="square_016um")
    centers = spatialdata.get_centroids(whole.shapes["HD_square_016um"], coordinate_system="HD")
    np.testing.assert_allclose(slide.obsm["spatial"], centers.compute()[["x", "y"]])


@pytest.mark.parametrize("held", [True, False])
def test_points_are_places_too(tmp_path, places, held):
    whole = visium()
    frame = pd.DataFrame(places, columns=["x", "y"], index=np.arange(N) + 7)
    whole.points["dots"] = PointsModel.parse(frame, transformations={"global": Identity()})
    table = whole.tables["table"]
    table.obs["region"] = pd.Categorical(["dots"] * N)
    table.uns["spatialdata_attrs"]["region"] = "dots"
    slide = sagefm.read(whole if held else write(whole, tmp_path / "a.zarr"))
    np.testing.assert_allclose(slide.obsm["spatial"], places)
    assert "centers of the points 'dots'" in told(slide)


def test_an_object_without_a_table_or_with_several():
    whole = visium_hd()
    with pytest.raises(
        InputError, match=r"holds 2 tables \(square_008um, square_016um\); pass table="
    ):
        sagefm.read(whole)
    with pytest.raises(InputError, match="has no table 'x'; the tables are: square_008um"):
        sagefm.read(whole, table="x")
    for name in list(whole.tables):
        del whole.tables[name]
    with pytest.raises(InputError, match="SpatialData: is a SpatialData without a table"):
        sagefm.read(whole)


def test_shapes_of_three_dimensions(places):
    from shapely import Point

    whole = visium()
    frame = whole.shapes["V1"].copy()
    frame["geometry"] = [Point(*xy, 5.0) for xy in places[::-1]]
    whole.shapes["V1"] = ShapesModel.parse(frame)
    np.testing.assert_allclose(sagefm.read(whole).obsm["spatial"], places)


def test_reading_a_folder_does_not_import_the_library(tmp_path):
    path = write(visium(), tmp_path / "a.zarr")
    code = f"import sys, sagefm; sagefm.read({str(path)!r}); sys.exit('spatialdata' in sys.modules)"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=120)
    assert run.returncode == 0


def test_the_example_of_the_faq_runs(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "faq.md"
    section = page.read_text().partition("### SpatialData")[2].partition("###")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    write(visium(), tmp_path / "sample.zarr")
    exec(code, {})
    assert "sagefm_domain" in spatialdata.read_zarr("sample.zarr").tables["table"].obs
