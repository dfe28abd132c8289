import gzip
from importlib import resources

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree
from tests.pp.folders import SHARED, Section, a_slide, told, write_h5, write_mtx, write_pictures

from sagefm import InputError, pp, read
from sagefm.pp.barcodes import N_SPOTS, places

real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real slides of shared/data are not here")


def visium_v1():
    file = resources.files("sagefm.pp") / "visium_v1_barcodes.txt.gz"
    return gzip.decompress(file.read_bytes()).decode().split()


def spots(first=1000, n_spots=30):
    section = Section(n_spots)
    section.barcodes = [f"{barcode}-1" for barcode in visium_v1()[first : first + n_spots]]
    return section


def test_the_array_is_whole_and_hexagonal():
    found = places(pd.Index(visium_v1()))
    assert len(found.table) == N_SPOTS
    assert not found.table.duplicated().any()
    assert (found.table["array_row"].max(), found.table["array_col"].max()) == (77, 127)
    xy = found.table[["x", "y"]].to_numpy()
    inner = found.table["array_row"].between(1, 76) & found.table["array_col"].between(2, 125)
    distances = cKDTree(xy).query(xy[inner], 8)[0]
    np.testing.assert_allclose(distances[:, 1:7], 100)
    assert (distances[:, 7] > 170).all()


def test_places_follow_the_barcode_and_not_the_order():
    names = visium_v1()[:200]
    found = places(pd.Index([f"P1_{name}-1" for name in reversed(names)]))
    table = found.table[::-1]
    np.testing.assert_array_equal(table["array_row"], np.arange(200) // 64)
    np.testing.assert_array_equal(
        table["array_col"], 2 * (np.arange(200) % 64) + np.arange(200) // 64 % 2
    )


@pytest.mark.parametrize("mtx", [True, False])
def test_a_matrix_without_its_spatial_folder(tmp_path, mtx):
    section = spots()
    if mtx:
        write_mtx(tmp_path, section, prefix="GSM1_s1_")
    else:
        write_h5(tmp_path / "GSM1_s1_filtered_feature_bc_matrix.h5", section)
    slide = read(tmp_path)
    np.testing.assert_array_equal(slide.X.toarray(), section.counts)
    np.testing.assert_array_equal(slide.obs["array_row"], 15 + (np.arange(30) + 40) // 64)
    x, y = slide.obsm["spatial"].T
    np.testing.assert_allclose(x, slide.obs["array_col"] * 50)
    np.testing.assert_allclose(y, slide.obs["array_row"] * 100 * 3**0.5 / 2)
    assert slide.uns["spot_pitch_um"] == 100
    assert pp.summarize(slide)["um_per_px"] == pytest.approx(1)
    assert "from the barcodes of Visium v1, 100 µm pitch, in µm" in told(slide)


def test_an_image_has_other_coordinates_and_is_not_used(tmp_path):
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", spots())
    write_pictures(tmp_path / "spatial")
    assert "spatial" not in read(tmp_path).uns


def test_a_raw_matrix_keeps_all_spots_and_names_faint_ones(tmp_path):
    section = spots()
    section.counts[:5] = 1
    write_h5(tmp_path / "raw_feature_bc_matrix.h5", section)
    slide = read(tmp_path)
    assert slide.n_obs == 30
    assert "does not say which spots are under tissue: all spots of the raw matrix" in told(slide)
    assert "5 spots with less than a tenth of the counts of a usual spot" in told(slide)


def test_few_unknown_barcodes_are_left_out_and_many_refused(tmp_path):
    section = spots()
    section.barcodes[0] = "A" * 16 + "-1"
    path = write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section)
    slide = read(tmp_path)
    np.testing.assert_array_equal(slide.X.toarray(), section.counts[1:])
    assert "1 of 30 barcodes have no position in the list of Visium v1" in told(slide)
    section.barcodes[1] = "C" * 16 + "-1"
    write_h5(path, section)
    with pytest.raises(InputError, match=r"not those of Visium v1 .*CytAssist .*; put the spatial"):
        read(tmp_path)


def test_packed_positions_are_better_than_barcodes(tmp_path):
    write_h5(tmp_path / "GSM1_filtered_feature_bc_matrix.h5", spots())
    (tmp_path / "GSM1_tissue_positions_list.csv.zip").touch()
    with pytest.raises(InputError, match=r"unpack GSM1_tissue_positions_list\.csv\.zip"):
        read(tmp_path)


def test_bins_of_visium_hd_have_their_place_in_their_name(tmp_path):
    section = Section()
    section.barcodes = [f"s_016um_{i // 6:05d}_{i % 6 + 100:05d}-1" for i in range(30)]
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section)
    slide = read(tmp_path)
    np.testing.assert_array_equal(slide.obs["array_row"], np.arange(30) // 6)
    wanted = np.c_[np.arange(30) % 6 + 100, np.arange(30) // 6] * 16
    np.testing.assert_array_equal(slide.obsm["spatial"], wanted)
    assert slide.uns["spot_pitch_um"] == 16
    with pytest.raises(InputError, match="bins of several sizes"):
        places(pd.Index(["s_008um_00000_00001-1", "s_016um_00000_00001-1"]))


def test_one_barcode_on_two_slides_is_refused():
    names = visium_v1()[:20]
    with pytest.raises(InputError, match="several spots have the same barcode"):
        places(pd.Index([f"{name}-{slide}" for slide in (1, 2) for name in names]))


def test_an_h5ad_without_coordinates(tmp_path):
    slide = a_slide()
    slide.obs_names = spots().barcodes
    slide.uns["spatial"] = {"a": {"images": {}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    del slide.obsm["spatial"]
    slide.write_h5ad(tmp_path / "a.h5ad")
    once = read(tmp_path / "a.h5ad")
    assert once.obsm["spatial"][0].tolist() == [4050, pytest.approx(1299.038)]
    assert "from the barcodes of Visium v1" in told(once)
    assert "left out: uns['spatial']" in told(once)
    once.write_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(read(tmp_path / "b.h5ad").obsm["spatial"], once.obsm["spatial"])


def test_an_h5ad_of_other_barcodes_stays_without_coordinates(tmp_path):
    slide = a_slide()
    del slide.obsm["spatial"]
    slide.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="no coordinates: obsm"):
        read(tmp_path / "a.h5ad")
    slide.uns["spatialdata_attrs"] = {"region": "spots"}
    slide.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r"in its shapes \(spots\); put their centers"):
        read(tmp_path / "a.h5ad")


@real
@pytest.mark.parametrize("name", ["dlpfc_151673", "crc_16", "prostate_10x_normal"])
def test_neighbors_by_barcode_are_those_in_pixels(name):
    slide = anndata.read_h5ad(SHARED / "slides" / f"{name}.h5ad")
    table = places(slide.obs_names).table
    if "array_row" in slide.obs:
        np.testing.assert_array_equal(table["array_row"], slide.obs["array_row"])
        np.testing.assert_array_equal(table["array_col"], slide.obs["array_col"])
    pixels = np.asarray(slide.obsm["spatial"], dtype=float)
    pitch = np.median(cKDTree(pixels).query(pixels, 2)[0][:, 1])
    for distance in (1.3, 2.15):  # 6 and 18 neighbors
        wanted = cKDTree(pixels).query_pairs(distance * pitch)
        assert cKDTree(table[["x", "y"]]).query_pairs(distance * 100) == wanted
