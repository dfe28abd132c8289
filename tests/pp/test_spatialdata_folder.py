"""SpatialData on disk, as versions 0.6 wrote it in zarr v2 and v3; the library is not needed."""

import json
import logging
import os
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import read_elem, write_elem
from tests.pp.spatialdatas import HIRES, N, counts, unpack

import sagefm
from sagefm import InputError, _spatialdata, _strays
from sagefm.pp.on_disk import counts_on_disk
from sagefm.pp.spatialdata._affine import matrices

pytestmark = [
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning"),
]


@pytest.fixture(scope="module")
def places():
    return counts()[1]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("sagefm").setLevel("ERROR")


def told(slide):
    return "; ".join(slide.uns["sagefm"]["read"]["told"])


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        sagefm.read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def attributes_of(group, change):
    """Change the attributes of a zarr group."""
    opened = zarr.open_group(group, mode="r+", use_consolidated=False)
    attributes = change(opened.attrs.asdict())
    opened.attrs.update(attributes)


def with_results(slide):
    """Give a slide a result of each kind."""
    names = np.where(slide.obsm["spatial"][:, 0] > 300, "right", "left")
    slide.obs["sagefm_domain"] = pd.Categorical(names)
    slide.obs["sagefm_score"] = np.arange(slide.n_obs, dtype=np.float64)
    slide.obs["sagefm_listed"] = names == "left"
    slide.obs["other"] = 1
    slide.obsm["X_sagefm"] = np.arange(2 * slide.n_obs, dtype=np.float32).reshape(-1, 2)
    slide.uns["sagefm"]["domains"] = {"n_domains": 2}
    return slide


# --- coordinates ---


def step(kind, *, axes="xy", out="global", **values):
    cs = [{"name": axis} for axis in axes]
    return {"type": kind, "input": {"axes": cs}, "output": {"name": out, "axes": cs}, **values}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (step("identity"), [[1, 0, 0], [0, 1, 0]]),
        (step("scale", scale=[2, 3]), [[2, 0, 0], [0, 3, 0]]),
        (step("scale", axes="cyx", scale=[1, 3, 2]), [[2, 0, 0], [0, 3, 0]]),
        (step("translation", axes="yx", translation=[5, 4]), [[1, 0, 4], [0, 1, 5]]),
        (step("affine", affine=[[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]]),
        (
            step("affine", axes="cyx", affine=[[1, 0, 0, 0], [0, 5, 4, 6], [0, 2, 1, 3]]),
            [[1, 2, 3], [4, 5, 6]],
        ),
        (step("mapAxis", mapAxis={"x": "y", "y": "x"}), [[0, 1, 0], [1, 0, 0]]),
        (
            step(
                "sequence",
                transformations=[
                    step("scale", scale=[2, 2]),
                    step("translation", translation=[1, 0]),
                ],
            ),
            [[2, 0, 1], [0, 2, 0]],
        ),
    ],
)
def test_a_transformation_is_a_matrix_of_x_and_y(entry, expected):
    np.testing.assert_allclose(matrices([entry])["global"][:2], expected)


def test_unknown_transformations_are_left_out():
    found = matrices(
        [step("displacements"), step("scale", scale=["a", 2]), step("identity", out="a")]
    )
    assert list(found) == ["a"]


@pytest.mark.parametrize("version", [2, 3])
def test_visium_without_its_full_image(tmp_path, places, version):
    slide = sagefm.read(unpack(f"visium_{version}", tmp_path))
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    ((name, library),) = slide.uns["spatial"].items()
    assert name == "V1"
    assert library["images"]["hires"].shape == (200, 160, 3)
    assert library["scalefactors"] == {"tissue_hires_scalef": HIRES, "spot_diameter_fullres": 18.0}
    assert "centers of the shapes 'V1' in the coordinate system 'global'" in told(slide)


@pytest.mark.parametrize("version", [2, 3])
def test_bins_of_visium_hd_are_a_table_each(tmp_path, places, version):
    path = unpack(f"hd_{version}", tmp_path)
    message = refused(path)
    assert f"holds 2 tables (square_008um, square_016um); name one, such as {path}" in message
    slide = sagefm.read(path, table="square_016um")
    np.testing.assert_allclose(slide.obsm["spatial"], places[: N // 4])
    library = slide.uns["spatial"]["HD_square_016um"]
    assert library["images"]["hires"].shape == (800, 640, 3)  # the full image fits
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(16)
    assert sagefm.read(path / "tables" / "square_008um").n_obs == N
    assert "holds 2 tables" in refused(path / "tables")
    assert "has no table 'x'; the tables are: square_008um, square_016um" in refused(
        path, table="x"
    )


@pytest.mark.parametrize("version", [2, 3])
def test_cells_of_labels_in_pixels_of_the_image(tmp_path, places, version):
    slide = sagefm.read(unpack(f"cells_{version}", tmp_path))
    np.testing.assert_allclose(slide.obsm["spatial"], places.astype(int))
    assert "obsm['spatial'] of the table has other coordinates" in told(slide)
    library = slide.uns["spatial"]["cell_labels"]
    assert library["images"]["hires"].shape == (800, 640)  # the first of five stains
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(6)


def test_a_large_image_is_read_at_a_fitting_scale(tmp_path, monkeypatch):
    path = unpack("hd_3", tmp_path)
    read = []
    monkeypatch.setattr("sagefm.pp.spatialdata._elements._LARGEST_SIDE", 150)
    get = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda a, at: read.append(a.name) or get(a, at))
    shutil.rmtree(path / "images" / "HD_hires_image")
    library = sagefm.read(path, table="square_008um").uns["spatial"]["HD_square_008um"]
    assert library["images"]["hires"].shape == (100, 80, 3)  # every second pixel of the last scale
    assert library["scalefactors"]["tissue_hires_scalef"] == 1 / 8
    assert not [name for name in read if "s0" in str(name) or "s1" in str(name)]


def test_an_image_that_is_turned_is_left_out(tmp_path):
    path = unpack("visium_3", tmp_path)
    turned = step("affine", axes="yx", out="global", affine=[[4, 1, 0], [-1, 4, 0]])

    def change(attributes):
        attributes["ome"]["multiscales"][0]["coordinateTransformations"] = [turned]
        return attributes

    attributes_of(path / "images" / "V1_hires_image", change)
    slide = sagefm.read(path)
    # Coordinates are in its pixels then: there is no other image.
    assert "pixels of the image 'V1_hires_image'" in told(slide)
    assert slide.uns["spatial"]["V1"]["scalefactors"]["tissue_hires_scalef"] == 1


def test_a_damaged_image_is_noted(tmp_path, places):
    path = unpack("visium_3", tmp_path)
    (path / "images" / "V1_hires_image" / "zarr.json").write_text("{")
    slide = sagefm.read(path)
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    assert "spatial" not in slide.uns
    assert "left out: images/V1_hires_image" in told(slide)


def test_rows_without_a_shape_are_left_out(tmp_path, places):
    path = unpack("visium_3", tmp_path)
    obs = zarr.open_group(path / "tables" / "table" / "obs", mode="r+", use_consolidated=False)
    ids = obs["instance"][:]
    ids[:2] = 9999
    write_elem(obs, "instance", ids)
    slide = sagefm.read(path)
    np.testing.assert_array_equal(slide.obsm["spatial"], places[2:])
    assert "2 rows of the table without a place in the shapes 'V1' left out (9999, 9999)" in told(
        slide
    )


def several(path):
    """Let a table annotate two regions: the same circles under two names."""
    shutil.copytree(path / "shapes" / "V1", path / "shapes" / "V2")
    table = zarr.open_group(path / "tables" / "table", mode="r+", use_consolidated=False)
    column = pd.Categorical(np.repeat(["V1", "V2"], [30, N - 30]))
    write_elem(table["obs"], "region", column)
    write_elem(table["uns/spatialdata_attrs"], "region", np.array(["V1", "V2"], dtype=object))
    return path


def test_other_tables_are_noted_and_can_be_added(tmp_path):
    path = unpack("visium_3", tmp_path)
    shutil.copytree(path / "tables" / "table", path / "tables" / "protein")
    slide = sagefm.read(path, table="table")
    assert "other tables are left out: protein; sagefm.pp.add_counts" in told(slide)
    sagefm.pp.add_counts(slide, "protein", path / "tables" / "protein")
    assert slide.obsm["protein"].shape == slide.shape


def test_several_regions_are_sections(tmp_path, places):
    path = several(unpack("visium_3", tmp_path))
    slide = sagefm.read(path)
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    assert slide.uns["sagefm"]["read"]["slide_key"] == "region"
    assert list(slide.uns["spatial"]) == ["V1"]  # the name of the image tells whose it is
    one = sagefm.read(path, region="V2")
    np.testing.assert_array_equal(one.obsm["spatial"], places[30:])
    assert not one.uns["sagefm"]["read"]["slide_key"]
    message = refused(path, region="V3")
    assert "has no rows of the region 'V3'; the regions are: V1, V2" in message


def test_a_table_that_annotates_nothing_is_an_anndata(tmp_path, places):
    path = unpack("visium_3", tmp_path)
    shutil.rmtree(path / "tables" / "table" / "uns" / "spatialdata_attrs")
    np.testing.assert_array_equal(sagefm.read(path).obsm["spatial"], places)
    assert "annotates nothing, so it has no region 'V1'" in refused(path, region="V1")


# --- bad input ---


def test_an_element_that_is_missing(tmp_path, places):
    path = unpack("visium_3", tmp_path)
    shutil.rmtree(path / "shapes" / "V1")
    slide = sagefm.read(path)  # the table has coordinates
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    assert "coordinates are those of obsm['spatial']: there is no V1" in told(slide)
    shutil.rmtree(path / "tables" / "table" / "obsm" / "spatial")
    assert "annotates V1, which is not among the shapes, labels and points (none)" in refused(path)


def test_instances_of_another_sample(tmp_path):
    path = unpack("visium_3", tmp_path)
    obs = zarr.open_group(path / "tables" / "table" / "obs", mode="r+", use_consolidated=False)
    write_elem(obs, "instance", np.array([f"cell{i}" for i in range(N)], dtype=object))
    assert "none of the 48 rows of the table (instances cell0, cell1, cell2, …)" in refused(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: shutil.rmtree(p / "tables"), "is a SpatialData without a table"),
        (lambda p: shutil.rmtree(p / "tables/table/obs/instance"), "instance"),
        (lambda p: (p / "shapes/V1/shapes.parquet").write_bytes(b"x"), "shapes/V1"),
        (lambda p: (p / "shapes/V1/shapes.parquet").unlink(), "shapes/V1"),
        (lambda p: (p / "shapes/V1/zarr.json").write_text("[]"), "shapes/V1"),
        (
            lambda p: attributes_of(
                p / "shapes/V1", lambda a: a | {"coordinateTransformations": []}
            ),
            "shapes 'V1' has no transformation to a coordinate system",
        ),
        (lambda p: os.mkfifo(p / "shapes/V1/pipe"), "which is no file"),
        (lambda p: (p / "tables/table/zarr.json").unlink(), "tables/table"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, change, said):
    path = unpack("visium_3", tmp_path)
    change(path)
    assert said in refused(path)


def test_an_empty_table(tmp_path):
    path = unpack("visium_3", tmp_path)
    table = anndata.read_zarr(path / "tables" / "table")[:0].copy()
    shutil.rmtree(path / "tables" / "table")
    table.write_zarr(path / "tables" / "table")
    assert "has no rows of any region" in refused(path)


def test_table_and_region_are_for_spatialdata(tmp_path):
    counts()[0].write_h5ad(tmp_path / "a.h5ad")
    assert "is no SpatialData; leave table and region out" in refused(
        tmp_path / "a.h5ad", table="x"
    )


def test_without_the_library_of_shapes_the_coordinates_of_the_table_are_used(
    tmp_path, places, monkeypatch
):
    path = unpack("visium_3", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    slide = sagefm.read(path)
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    assert "needs shapely" in told(slide)
    shutil.rmtree(path / "tables" / "table" / "obsm" / "spatial")
    assert "[spatialdata]" in refused(path)


# --- without the counts ---


def test_the_counts_of_a_table_stay_on_disk(tmp_path, places):
    path = unpack("visium_2", tmp_path)
    slide, whole = (sagefm.read(path, backed=backed) for backed in (True, False))
    assert slide.X is None
    np.testing.assert_array_equal(slide.obsm["spatial"], places)
    assert slide.uns["spatial"].keys() == whole.uns["spatial"].keys()
    assert (counts_on_disk(slide).load() != whole.X).nnz == 0
    slide.obs["sagefm_domain"] = "1"
    sagefm.pp.write_back(slide, path)
    assert (sagefm.read(path).obs["sagefm_domain"] == "1").all()


# --- results ---


def files(folder, *, without=()):
    found = {path.relative_to(folder): path for path in Path(folder).rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in found.items()
        if not str(name).startswith(tuple(without))
    }


@pytest.mark.parametrize("version", [2, 3])
def test_results_are_written_into_the_table(tmp_path, places, version):
    path = unpack(f"visium_{version}", tmp_path)
    changing = [
        "tables/table/obs",
        "tables/table/uns",
        "tables/table/.z",
        "zarr.json",
        ".zmetadata",
    ]
    changing.append("tables/table/obsm")
    before = files(path, without=changing)
    slide = with_results(sagefm.read(path))
    sagefm.pp.write_back(slide[::-1][:40].copy(), path)
    assert files(path, without=changing) == before
    table = anndata.read_zarr(path / "tables" / "table")
    assert table.obs["sagefm_domain"].isna().sum() == 8
    assert (table.obs["sagefm_domain"][8:] == slide.obs["sagefm_domain"][8:]).all()
    np.testing.assert_array_equal(table.obs["sagefm_score"][8:], np.arange(8, N))
    assert table.obs["sagefm_listed"].dtype == "boolean"
    np.testing.assert_array_equal(np.isnan(table.obsm["X_sagefm"]).any(axis=1), np.arange(N) < 8)
    np.testing.assert_array_equal(table.obsm["X_sagefm"][8:], slide.obsm["X_sagefm"][8:])
    np.testing.assert_array_equal(table.obsm["spatial"], places)
    assert "other" not in table.obs
    assert "read" not in table.uns["sagefm"]
    assert table.uns["spatialdata_attrs"]["region"] == "V1"
    # Again, with other values.
    slide.obs["sagefm_score"] += 1
    sagefm.pp.write_back(slide, path)
    again = anndata.read_zarr(path / "tables" / "table")
    np.testing.assert_array_equal(again.obs["sagefm_score"], np.arange(N) + 1.0)
    assert list(again.obs) == list(table.obs)
    np.testing.assert_array_equal(sagefm.read(path).X.toarray(), slide.X.toarray())
    whole = zarr.open_consolidated(path)  # the metadata of the whole know the results too
    np.testing.assert_array_equal(whole["tables/table/obs/sagefm_score"][:], np.arange(N) + 1.0)
    assert not list(path.glob(".sagefm*"))


def test_coordinates_are_written_where_the_table_has_none(tmp_path, places):
    path = unpack("hd_3", tmp_path)
    slide = with_results(sagefm.read(path, table="square_008um"))
    sagefm.pp.write_back(slide, path, table="square_008um")
    group = zarr.open_group(path / "tables" / "square_008um", mode="r")
    np.testing.assert_allclose(read_elem(group["obsm"])["spatial"], places)


def test_results_of_another_slide_are_refused(tmp_path):
    path = unpack("visium_3", tmp_path)
    slide = with_results(sagefm.read(path))
    bare = sagefm.read(path)
    with pytest.raises(InputError, match="the slide has no results of sagefm"):
        sagefm.pp.write_back(bare, path)
    slide.obs["instance"] += 1
    with pytest.raises(InputError, match=r"the table lacks 1 spot of the slide \(V1: 55\)"):
        sagefm.pp.write_back(slide, path)
    with pytest.raises(InputError, match="is no SpatialData"):
        sagefm.pp.write_back(slide, tmp_path)
    assert "sagefm_score" not in anndata.read_zarr(path / "tables" / "table").obs


remove = shutil.rmtree


def all_but_the_work(folder, **options):
    """Remove a folder as zarr does, but clean nothing up."""
    if not Path(folder).name.startswith(".sagefm-"):
        remove(folder, **options)


class Killed(BaseException):
    pass


def killed(*_, **__):
    raise Killed


@pytest.mark.parametrize(
    ("step", "at_once"),
    [
        ("results_for", True),
        ("_exchange", True),
        ("_update_root", True),
        ("_update_root", False),
        ("second", False),
    ],
)
def test_a_killed_run_leaves_the_old_table_or_the_new_one(tmp_path, monkeypatch, step, at_once):
    path = unpack("visium_3", tmp_path)
    slide = with_results(sagefm.read(path))
    sagefm.pp.write_back(slide, path)
    slide.obs["sagefm_score"] += 100
    with monkeypatch.context() as patch:
        patch.setattr(_spatialdata.shutil, "rmtree", all_but_the_work)
        if not at_once:
            patch.setattr(_spatialdata, "_exchange_at_once", lambda *_: False)
        if step == "second":  # between the two steps of an exchange
            patch.setattr(
                _spatialdata, "_exchange", lambda _, old: old.rename(aside(path)) and killed()
            )
        else:
            patch.setattr(_spatialdata, step, killed)
        with pytest.raises(Killed):
            sagefm.pp.write_back(slide, path)
    assert sagefm.read(path).n_obs == N
    first = anndata.read_zarr(path / "tables" / "table").obs["sagefm_score"].iloc[0]
    assert first == (100 if step == "_update_root" else 0)
    monkeypatch.setattr(_strays, "_is_running", lambda _: False)
    sagefm.pp.write_back(slide, path / "tables" / "table")
    assert anndata.read_zarr(path / "tables" / "table").obs["sagefm_score"].iloc[0] == 100
    assert not list(path.glob(".sagefm*"))


def aside(path):
    (work,) = path.glob(".sagefm*")
    return work / "old-table"


def test_consolidated_metadata_of_a_table_are_renewed(tmp_path):
    path = unpack("visium_3", tmp_path)
    zarr.consolidate_metadata(zarr.open_group(path / "tables" / "table", mode="r+").store)
    sagefm.pp.write_back(with_results(sagefm.read(path)), path)
    assert "sagefm_score" in anndata.read_zarr(path / "tables" / "table").obs
    entries = json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert "tables/table/obs/sagefm_score" in entries


def test_the_command_writes_into_the_table(tmp_path, run):
    path = unpack("visium_3", tmp_path)
    other = shutil.copytree(path, tmp_path / "other.zarr")
    words = ["-n", 2, "--method", "kmeans", "--use-rep", "spatial"]
    assert run("domains", path, "-o", path, *words)[0] == 0
    assert set(anndata.read_zarr(path / "tables" / "table").obs["sagefm_domain"]) == {"1", "2"}
    code, _, error = run("domains", path, "-o", other, *words)
    assert code == 2
    assert "exists already and was not made from" in error
    assert run("domains", path, "-o", other, *words, "--overwrite")[0] == 0
    assert "sagefm_domain" in anndata.read_zarr(other / "tables" / "table").obs
    code, _, error = run("domains", path, "-o", tmp_path / "new.zarr", *words)
    assert code == 2
    assert "ends with .h5ad, or name a SpatialData that exists" in error


def test_embed_writes_into_the_table(tmp_path, run, slide, model):
    (tmp_path / "a.zarr" / "tables").mkdir(parents=True)
    slide.copy().write_zarr(tmp_path / "a.zarr" / "tables" / "table")
    model.save(tmp_path / "model.safetensors")
    code, out, error = run("embed", "a.zarr", "-o", "a.zarr", "-m", "model.safetensors")
    assert code == 0, error
    table = anndata.read_zarr(tmp_path / "a.zarr" / "tables" / "table")
    expected = slide.copy()
    sagefm.tl.embed(expected, model)
    np.testing.assert_allclose(table.obsm["X_sagefm"], expected.obsm["X_sagefm"], rtol=1e-5)
    np.testing.assert_array_equal(table.X.toarray(), slide.X.toarray())
    assert "a.zarr: 200 spots" in out
