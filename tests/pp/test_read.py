import gzip
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from tests.pp.folders import (
    SHARED,
    SYMBOLS,
    Section,
    a_slide,
    hd,
    outs,
    told,
    write_h5,
    write_mtx,
    write_positions,
)

from sagefm import InputError, read
from sagefm.pp.simulate import simulate

real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real fixtures of shared/data are not here"
)


# --- .h5ad and .zarr ---


def test_an_h5ad_keeps_all_that_it_has(tmp_path, caplog):
    slide = a_slide()
    slide.obs["label"] = "tumor"
    slide.obsm["X_pca"] = np.ones((30, 2))
    slide.layers["log"] = slide.X.copy()
    slide.uns["sagefm"] = {"domains": {"n": 7}}
    slide.varm["PCs"] = np.ones((8, 2))
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.obs) == ["label"]
    assert set(again.layers) - {None} == {"log"}  # anndata may list X as None
    assert "X_pca" in again.obsm
    assert "PCs" in again.varm
    assert again.uns["sagefm"]["domains"] == {"n": 7}
    np.testing.assert_array_equal(again.X.toarray(), slide.X.toarray())
    assert not caplog.records


@pytest.mark.parametrize("convert", [lambda x: x.toarray(), lambda x: x.astype(np.int64)])
def test_dense_or_integer_counts_become_csr_float32(tmp_path, convert):
    slide = a_slide()
    dense = slide.X.toarray()
    slide.X = convert(slide.X)
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert isinstance(again.X, csr_matrix)
    assert again.X.dtype == np.float32
    np.testing.assert_array_equal(again.X.toarray(), dense)


def test_counts_of_a_layer_become_x_and_that_is_told(tmp_path):
    slide = a_slide()
    dense = slide.X.toarray()
    slide.layers["counts"] = slide.X.copy()
    slide.layers["double"] = slide.X * 2
    slide.X = csr_matrix(np.log1p(dense))
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), dense)
    assert "X now has the counts of layers['counts']" in told(again)
    assert again.uns["sagefm"]["read"]["counts"] == "layers['counts']"
    again = read(tmp_path / "a.h5ad", layer="double")
    np.testing.assert_array_equal(again.X.toarray(), 2 * dense)
    with pytest.raises(InputError, match=r"looks log-normalized.*pass layer='counts'"):
        read(tmp_path / "a.h5ad", layer="X")


def test_counts_of_raw_bring_their_own_genes(tmp_path):
    whole = a_slide()
    slide = whole[:, :3].copy()
    slide.raw = whole
    slide.layers["log"] = slide.X.copy()
    slide.X = csr_matrix(np.log1p(slide.X.toarray()))
    slide.obsm["X_pca"] = np.ones((30, 2))
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.var_names) == list(SYMBOLS)
    np.testing.assert_array_equal(again.X.toarray(), whole.X.toarray())
    assert "X_pca" in again.obsm
    assert "left out: layers['log'], raw" in told(again)


def test_counts_of_raw_with_the_same_genes_keep_the_table_of_genes(tmp_path):
    slide = a_slide()
    slide.raw = slide.copy()
    slide.var["highly_variable"] = True
    slide.X = csr_matrix(np.log1p(slide.X.toarray()))
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.var["highly_variable"].all()
    np.testing.assert_array_equal(again.X.toarray(), again.raw.X.toarray())


def test_duplicate_symbols_of_an_h5ad(tmp_path):
    slide = a_slide()
    dense = slide.X.toarray()
    slide.layers["log"] = slide.X.copy()
    slide.var.index = pd.Index(["TBCE", "TBCE", *SYMBOLS[2:]])
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.var_names) == ["TBCE", *SYMBOLS[2:]]
    np.testing.assert_array_equal(again.X[:, 0].toarray().ravel(), dense[:, :2].sum(axis=1))
    assert "left out: layers['log']" in told(again)


@pytest.mark.parametrize("column", ["gene_id", "gene_ids", "ensembl_id", "ENSEMBL"])
def test_ensembl_ids_of_a_column_are_kept_as_gene_ids(tmp_path, column):
    slide = a_slide()
    ids = [f"ENSG{i:011d}" for i in range(8)]
    slide.var[column] = pd.Categorical(ids)
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.var["gene_ids"]) == ids
    assert list(again.var_names) == list(SYMBOLS)


@pytest.mark.parametrize("column", ["gene_name", "feature_name", "gene_symbols", "symbol"])
def test_ensembl_names_give_way_to_symbols(tmp_path, column):
    ids = [f"ENSG{i:011d}.1" for i in range(8)]
    slide = a_slide(names=ids)
    slide.var[column] = pd.Categorical([None, *SYMBOLS[1:]])
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert list(again.var_names) == [ids[0], *SYMBOLS[1:]]
    assert again.var_names.dtype == object
    assert list(again.var["gene_ids"]) == ids
    assert f"genes are named by var['{column}']" in told(again)


def test_ensembl_names_without_symbols_are_told(tmp_path):
    a_slide(names=[f"ENSG{i:011d}" for i in range(8)]).write_h5ad(tmp_path / "a.h5ad")
    assert "the gene names are Ensembl ids and no symbols are known" in told(
        read(tmp_path / "a.h5ad")
    )


def test_coordinates_of_obs_fill_obsm(tmp_path):
    slide = a_slide()
    xy = slide.obsm.pop("spatial")
    slide.obs["pxl_col_in_fullres"], slide.obs["pxl_row_in_fullres"] = xy.T
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["spatial"], xy)
    assert "coordinates are taken from obs" in told(again)


def test_warnings_are_told(tmp_path, caplog):
    slide = a_slide(n_spots=12)
    slide.X.data[:8] = 0
    slide.write_h5ad(tmp_path / "small.h5ad")
    read(tmp_path / "small.h5ad")
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "small.h5ad: 1 spot without any count",
        "small.h5ad: the slide has 12 spots, but a neighborhood needs 15; leave it out or use a "
        "model with smaller neighborhoods",
    ]


def write_zarr(path, slide, version):
    with anndata.settings.override(zarr_write_format=version, auto_shard_zarr_v3=False):
        slide.write_zarr(path)
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning")
@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_folder_plain_zipped_and_in_spatialdata(tmp_path, version):
    slide = a_slide()
    path = write_zarr(tmp_path / "a.zarr", slide, version)
    shutil.make_archive(str(path), "zip", path)
    whole = tmp_path / "spatialdata.zarr"
    (whole / "tables").mkdir(parents=True)
    (whole / "zarr.json").write_text("{}")
    shutil.copytree(path, whole / "tables" / "table")
    for source in (path, tmp_path / "a.zarr.zip", whole, whole / "tables" / "table"):
        np.testing.assert_array_equal(read(source).X.toarray(), slide.X.toarray())
    shutil.copytree(path, whole / "tables" / "square_008um")
    assert "holds 2 tables (square_008um, table); name one" in refused(whole)


# --- several slides in one object ---


def two_slides(tmp_path, *, same_barcodes=True):
    slide = a_slide(n_spots=60)
    slide.obs["sample"] = ["a"] * 30 + ["b"] * 30
    if same_barcodes:
        slide.obs.index = pd.Index([*slide.obs_names[:30]] * 2)
    slide.write_h5ad(tmp_path / "two.h5ad")
    return tmp_path / "two.h5ad"


@pytest.mark.parametrize("same", [True, False])
def test_several_slides_need_a_slide_key(tmp_path, same):
    path = two_slides(tmp_path, same_barcodes=same)
    with pytest.raises(InputError, match="pass slide_key='sample'"):
        read(path)


def test_shared_barcodes_are_named_by_slide(tmp_path):
    path = two_slides(tmp_path)
    slide = read(path, slide_key="sample")
    assert slide.obs_names.is_unique
    assert slide.obs_names[0].startswith("a_A")
    assert slide.obs_names[30] == "b" + slide.obs_names[0][1:]
    assert "slides share barcodes" in told(slide)
    assert slide.uns["sagefm"]["read"]["slide_key"] == "sample"
    slide.write_h5ad(path)
    again = read(path)
    assert again.uns["sagefm"]["read"]["slide_key"] == "sample"
    assert told(again) == told(slide)  # what was told first is kept


def test_barcodes_of_their_own_stay(tmp_path):
    slide = read(two_slides(tmp_path, same_barcodes=False), slide_key="sample")
    assert not slide.obs_names[0].startswith("a_")


def test_duplicate_barcodes_are_refused(tmp_path):
    path = two_slides(tmp_path)
    slide = a_slide()
    slide.obs.index = pd.Index(["same", "same", *slide.obs_names[2:]])
    slide.write_h5ad(path)
    with pytest.raises(InputError, match=r"1 barcode is duplicated \(same\)"):
        read(path)
    slide.obs["part"] = ["a"] * 15 + ["b"] * 15
    slide.write_h5ad(path)
    with pytest.raises(InputError, match=r"within a slide of obs\['part'\] \(a_same\)"):
        read(path, slide_key="part")


def test_a_slide_key_must_be_a_full_column(tmp_path):
    path = two_slides(tmp_path, same_barcodes=False)
    with pytest.raises(InputError, match=r"no obs column 'nothing'.*columns are: sample"):
        read(path, slide_key="nothing")
    slide = a_slide()
    slide.obs["part"] = ["a"] * 29 + [None]
    slide.write_h5ad(path)
    with pytest.raises(InputError, match="no value for 1 spot"):
        read(path, slide_key="part")


# --- what cannot be read: one line each, with the path and a remedy ---


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; " in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["nothing", "nothing.h5ad", "nothing.zarr", "no/where/at.h5"])
def test_what_does_not_exist(tmp_path, name):
    assert refused(tmp_path / name).startswith("does not exist")


def test_an_empty_folder_and_one_without_a_matrix(tmp_path):
    assert "folder is empty" in refused(tmp_path)
    write_positions(tmp_path / "tissue_positions.csv", Section(), headed=True)
    assert "no count matrix" in refused(tmp_path)


def test_a_folder_of_slides(tmp_path):
    outs(tmp_path / "one" / "outs")
    hd(tmp_path / "two" / "outs", (8,))
    a_slide().write_h5ad(tmp_path / "x.h5ad")
    assert "a folder of 3 slides (one, two, x.h5ad); name one" in refused(tmp_path)


def test_a_folder_without_positions(tmp_path):
    write_h5(tmp_path / "GSM1_filtered_feature_bc_matrix.h5", Section())
    assert "put the spatial folder next to the matrix" in refused(tmp_path)
    (tmp_path / "GSM1_spatial.tar.gz").touch()
    assert "unpack GSM1_spatial.tar.gz" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tissue_hires_image.png", "is an image"),
        ("slide.rds", "is an R object"),
        ("spatial.tar.gz", "is an archive; unpack"),
        ("slide.h5ad.gz", "gunzip"),
        ("table.csv", "is no slide"),
    ],
)
def test_other_kinds_of_files(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"something")
    assert words in refused(tmp_path / name)


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_truncated_files(tmp_path, keep):
    a_slide().write_h5ad(tmp_path / "a.h5ad")
    outs(tmp_path / "outs")
    for path in (tmp_path / "a.h5ad", tmp_path / "outs" / "filtered_feature_bc_matrix.h5"):
        path.write_bytes(path.read_bytes()[:keep])
        assert "cannot be read (" in refused(path)


def test_a_truncated_mtx(tmp_path):
    write_mtx(tmp_path / "filtered_feature_bc_matrix", Section(), gz=False)
    write_positions(tmp_path / "tissue_positions.csv", Section(), headed=True)
    matrix = tmp_path / "filtered_feature_bc_matrix" / "matrix.mtx"
    matrix.write_bytes(matrix.read_bytes()[:400])
    assert "matrix.mtx cannot be read" in refused(tmp_path)
    matrix.with_name("matrix.mtx.gz").write_bytes(gzip.compress(b"x" * 400)[:20])
    assert "matrix.mtx.gz cannot be read" in refused(tmp_path)


def test_hdf5_of_another_kind(tmp_path):
    import h5py

    for name in ("a.h5ad", "filtered_feature_bc_matrix.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["something"] = 1
        write_positions(tmp_path / "tissue_positions.csv", Section(), headed=True)
        refused(tmp_path / name)


def test_a_zarr_that_is_none(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    refused(tmp_path / "a.zarr")
    (tmp_path / "a.zarr.zip").write_bytes(b"no zip")
    refused(tmp_path / "a.zarr.zip")


@pytest.mark.parametrize("fault", ["log", "nan", "negative", "no coordinates", "one place"])
def test_a_bad_slide_is_refused_with_its_path(tmp_path, fault):
    slide = a_slide()
    if fault == "log":
        slide.X = csr_matrix(np.log1p(slide.X.toarray()))
    elif fault == "no coordinates":
        del slide.obsm["spatial"]
    elif fault == "one place":
        slide.obsm["spatial"][:] = 3
    else:
        slide.X.data[4] = np.nan if fault == "nan" else -1
    slide.write_h5ad(tmp_path / "a.h5ad")
    refused(tmp_path / "a.h5ad")


@real
def test_a_real_slide_comes_without_a_word(caplog):
    slide = read(SHARED / "slides" / "dlpfc_151673.h5ad")
    assert slide.shape == (3639, 8881)
    assert not caplog.records


def test_changing_x_after_reading_leaves_the_layer_alone(tmp_path):
    slide = simulate(40, seed=1)
    slide.layers["counts"] = slide.X.copy()
    slide.X = slide.X.log1p() * 0.7
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    np.log1p(again.X.data, out=again.X.data)
    assert (again.layers["counts"] != slide.layers["counts"]).nnz == 0


def test_where_a_slide_comes_from_survives_a_second_reading(tmp_path):
    slide = simulate(40, seed=1)
    slide.layers["counts"] = slide.X.copy()
    slide.X = slide.X.log1p() * 0.7
    slide.write_h5ad(tmp_path / "first.h5ad")
    once = read(tmp_path / "first.h5ad")
    once.write_h5ad(tmp_path / "second.h5ad")
    entry = read(tmp_path / "second.h5ad").uns["sagefm"]["read"]
    assert entry["source"] == str(tmp_path / "first.h5ad")
    assert entry["counts"] == "layers['counts']"
    assert entry["told"] == once.uns["sagefm"]["read"]["told"] != []


# --- spots outside the tissue ---


FLAGS = {
    "numbers": ([1, 0, 1] * 10, 20),
    "booleans": ([True, False, True] * 10, 20),
    "words": (["1", "0", "1"] * 10, 20),
    "categories": (pd.Categorical(["True", "False", "True"] * 10), 20),
    "gaps": ([1.0, 0.0, np.nan] * 10, 20),
    "all": ([1] * 30, 30),
    "other": (["tumor", "0", "1"] * 10, 30),
}


@pytest.mark.parametrize("column", ["in_tissue", "In_Tissue", "tissue"])
@pytest.mark.parametrize("kind", FLAGS)
def test_spots_outside_the_tissue_are_left_out_and_told(tmp_path, kind, column):
    slide = a_slide()
    slide.obs[column], n_spots = FLAGS[kind]
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    assert again.n_obs == n_spots
    words = f"10 spots outside the tissue (obs['{column}'] is 0) left out"
    assert (words in told(again)) is (n_spots < 30)
    kept = slide[again.obs_names]
    np.testing.assert_array_equal(again.obsm["spatial"], kept.obsm["spatial"])
    np.testing.assert_array_equal(again.X.toarray(), kept.X.toarray())


def test_a_slide_of_background_alone_is_refused(tmp_path):
    slide = a_slide()
    slide.obs["in_tissue"] = 0
    slide.write_h5ad(tmp_path / "a.h5ad")
    assert "no spot is under tissue" in refused(tmp_path / "a.h5ad")


def test_spots_that_a_folder_kept_stay_when_the_slide_is_read_again(tmp_path):
    folder = outs(tmp_path / "outs", Section(in_tissue=[1, 0, 1] * 10))
    read(folder).write_h5ad(tmp_path / "a.h5ad")
    assert read(tmp_path / "a.h5ad").n_obs == 30


# --- what was read can be written ---


def test_what_was_read_can_be_written(tmp_path):
    slide = a_slide()
    slide.obs["n"] = 1
    slide.var["m"] = 2
    slide.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        for table, name in (("obs", "n"), ("var", "m")):
            group = file[table]
            group.move(group.attrs["_index"], "names")
            group.attrs["_index"] = "names"
            group.move(name, "_index")
            group.attrs["column-order"] = np.array(["_index"], dtype=object)
    again = read(tmp_path / "a.h5ad")
    assert "obs['_index'] is 'index_', var['_index'] is 'index_'" in told(again)
    again.write_h5ad(tmp_path / "b.h5ad")
    assert list(read(tmp_path / "b.h5ad").obs) == ["index_"]


@pytest.mark.filterwarnings("ignore:Forward slashes will be disallowed:FutureWarning")
def test_a_slide_key_is_renamed_with_its_column(tmp_path):
    slide = a_slide(n_spots=60)
    slide.obs["part"] = ["a"] * 30 + ["b"] * 30
    slide.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        file.move("obs/part", "obs/of/part")
        file["obs"].attrs["column-order"] = np.array(["of/part"], dtype=object)
    again = read(tmp_path / "a.h5ad", slide_key="of/part")
    assert again.uns["sagefm"]["read"]["slide_key"] == "of_part"
    assert list(again.obs) == ["of_part"]


def test_named_coordinates_are_stored_as_x_and_y(tmp_path):
    slide = a_slide()
    xy = slide.obsm["spatial"]
    table = pd.DataFrame(xy[:, ::-1], slide.obs_names, ["imagerow", "imagecol"])
    slide.obsm["spatial"] = table.assign(tissue=1)
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["spatial"], xy)
    assert "columns of obsm['spatial'] that are not x and y are left out: tissue" in told(again)
