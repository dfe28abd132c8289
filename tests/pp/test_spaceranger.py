import logging
import re

import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from tests.pp.folders import (
    SHARED,
    Section,
    hd,
    outs,
    told,
    write_h5,
    write_mtx,
    write_pictures,
    write_positions,
)

import sagefm
from sagefm import InputError, read
from sagefm.pp.gene_names import known_gene_names
from sagefm.pp.positions import read_positions

real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real fixtures of shared/data are not here"
)


def assert_is(slide: AnnData, section: Section) -> None:
    """Every spot is there with its own counts and its own place."""
    assert list(slide.obs_names) == section.barcodes
    assert list(slide.var_names) == list(section.names)
    assert list(slide.var["gene_ids"]) == list(section.ids)
    assert isinstance(slide.X, csr_matrix)
    assert slide.X.dtype == np.float32
    np.testing.assert_array_equal(slide.X.toarray(), section.counts)
    np.testing.assert_array_equal(slide.obsm["spatial"], section.spatial)
    assert slide.obsm["spatial"].dtype == np.float64
    for column in ("in_tissue", "array_row", "array_col"):
        np.testing.assert_array_equal(slide.obs[column], section.positions[column])


# --- Space Ranger folders ---


@pytest.mark.parametrize("positions", ["headed", "headerless"])
def test_an_outs_folder(tmp_path, positions):
    section = Section()
    slide = read(outs(tmp_path / "patient1" / "outs", section, positions))
    assert_is(slide, section)
    library = slide.uns["spatial"]["patient1"]
    assert library["images"]["hires"].shape[:2] == (8, 8)
    assert library["images"]["lowres"].shape[:2] == (4, 4)
    assert library["scalefactors"]["tissue_hires_scalef"] == 0.5
    assert told(slide) == ""


def test_the_folder_above_the_matrix_itself_and_its_mtx_folder(tmp_path):
    section = Section()
    folder = outs(tmp_path / "patient1" / "outs", section)
    assert_is(read(folder.parent), section)
    assert_is(read(folder / "filtered_feature_bc_matrix.h5"), section)
    assert_is(read(str(folder)), section)
    write_mtx(folder / "filtered_feature_bc_matrix", section)
    assert_is(read(folder / "filtered_feature_bc_matrix"), section)
    assert_is(read(folder / "filtered_feature_bc_matrix" / "matrix.mtx.gz"), section)


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_an_mtx_folder(tmp_path, gz, version):
    section = Section()
    write_mtx(tmp_path / "filtered_feature_bc_matrix", section, gz=gz, version=version)
    write_positions(tmp_path / "spatial" / "tissue_positions_list.csv", section, headed=False)
    slide = read(tmp_path)
    assert_is(slide, section)
    assert "spatial" not in slide.uns


def test_an_h5_of_version_2(tmp_path):
    section = Section()
    folder = outs(tmp_path, section)
    write_h5(folder / "filtered_feature_bc_matrix.h5", section, version=2)
    assert_is(read(folder), section)


def test_a_gene_called_na_stays(tmp_path):
    section = Section(names=("NA", "nan", "5'-x", "MBP"))
    write_mtx(tmp_path / "filtered_feature_bc_matrix", section)
    write_positions(tmp_path / "tissue_positions.csv", section, headed=True)
    assert_is(read(tmp_path), section)


def test_both_compressions_side_by_side(tmp_path):
    section = Section()
    write_mtx(tmp_path / "filtered_feature_bc_matrix", section, gz=True)
    (tmp_path / "filtered_feature_bc_matrix" / "features.tsv").write_text("not\tthis\tone\n")
    write_positions(tmp_path / "tissue_positions.csv", section, headed=True)
    assert_is(read(tmp_path), section)


def test_files_that_are_not_of_one_matrix_are_refused(tmp_path):
    folder = tmp_path / "filtered_feature_bc_matrix"
    write_mtx(folder, Section(), gz=False)
    write_positions(tmp_path / "tissue_positions.csv", Section(), headed=True)
    (folder / "barcodes.tsv").write_text("AAAC-1\n")
    with pytest.raises(InputError, match=r"8 genes × 30 spots, but .* list 8 and 1"):
        read(tmp_path)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(InputError, match=r"barcodes\.tsv is missing next to matrix\.mtx"):
        read(tmp_path)


def test_duplicate_symbols_are_summed_and_told(tmp_path, caplog):
    section = Section(names=("TBCE", "MBP", "TBCE", "GFAP"))
    slide = read(outs(tmp_path, section))
    assert list(slide.var_names) == ["TBCE", "MBP", "GFAP"]
    np.testing.assert_array_equal(
        slide.X[:, 0].toarray().ravel(), section.counts[:, [0, 2]].sum(axis=1)
    )
    assert slide.var["gene_ids"].iloc[0] == "ENSG00000000000;ENSG00000000002"
    assert "1 gene name is duplicated (TBCE): their counts were summed" in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_features_that_are_no_genes_are_kept_apart_and_told(tmp_path):
    section = Section(
        names=("MBP", "GFAP", "CD3"), kinds=("Gene Expression",) * 2 + ("Antibody Capture",)
    )
    slide = read(outs(tmp_path, section))
    assert list(slide.var_names) == ["MBP", "GFAP"]
    assert "features that are not genes are not used: 1 Antibody Capture" in told(slide)
    assert list(slide.obsm["antibody_capture"].columns) == ["CD3"]
    assert len(slide.obsm["antibody_capture"]) == slide.n_obs


def test_barcodes_without_a_position_are_left_out_and_told(tmp_path):
    section = Section()
    folder = outs(tmp_path, section)
    section.positions = section.positions[3:]
    write_positions(folder / "spatial" / "tissue_positions.csv", section, headed=False)
    slide = read(folder)
    assert slide.n_obs == 27
    np.testing.assert_array_equal(slide.X.toarray(), section.counts[3:])
    np.testing.assert_array_equal(slide.obsm["spatial"], section.spatial)
    assert "3 of 30 barcodes have no position in tissue_positions.csv and are left out" in told(
        slide
    )


def test_positions_in_another_order_and_with_more_spots(tmp_path):
    section = Section()
    folder = outs(tmp_path, section)
    shuffled = Section(n_spots=40)
    shuffled.positions = shuffled.positions.sample(frac=1, random_state=0)
    write_positions(folder / "spatial" / "tissue_positions.csv", shuffled, headed=False)
    assert_is(read(folder), section)


def test_positions_of_another_slide_are_refused(tmp_path):
    folder = outs(tmp_path)
    other = Section(ending="T-1")
    write_positions(folder / "spatial" / "tissue_positions.csv", other, headed=True)
    with pytest.raises(InputError, match=r"none of the 30 barcodes .*not of one sample"):
        read(folder)


@pytest.mark.parametrize(("of_matrix", "of_positions"), [("-1", ""), ("", "-1")])
def test_an_ending_on_one_side_only_is_matched_and_told(tmp_path, of_matrix, of_positions):
    section = Section(ending=of_matrix)
    folder = outs(tmp_path, section)
    write_positions(
        folder / "spatial" / "tissue_positions.csv", Section(ending=of_positions), headed=True
    )
    slide = read(folder)
    assert_is(slide, section)
    assert "without their -1 ending" in told(slide)


def test_an_aggregated_matrix_is_refused(tmp_path):
    section = Section()
    section.barcodes[15:] = [name.replace("-1", "-2") for name in section.barcodes[:15]]
    with pytest.raises(InputError, match=r"several slides in one matrix .*-1, -2"):
        read(outs(tmp_path, section))


def test_a_raw_matrix_alone_keeps_what_is_under_tissue(tmp_path):
    section = Section(in_tissue=[1, 0, 1] * 10)
    write_h5(tmp_path / "raw_feature_bc_matrix.h5", section)
    write_positions(tmp_path / "spatial" / "tissue_positions.csv", section, headed=True)
    slide = read(tmp_path)
    inside = np.array(section.in_tissue) == 1
    assert (slide.obs["in_tissue"] == 1).all()
    np.testing.assert_array_equal(slide.X.toarray(), section.counts[inside])
    assert "there is only the raw matrix: 10 spots outside the tissue left out" in told(slide)


def test_a_filtered_matrix_is_taken_at_its_word(tmp_path):
    section = Section(in_tissue=[1, 0, 1] * 10)
    folder = outs(tmp_path, section)
    write_h5(tmp_path / "raw_feature_bc_matrix.h5", Section())
    slide = read(folder)
    assert_is(slide, section)
    assert "10 spots outside the tissue (in_tissue 0) kept" in told(slide)


def test_a_broken_image_is_told_and_left_out(tmp_path):
    folder = outs(tmp_path)
    (folder / "spatial" / "tissue_hires_image.png").write_bytes(b"\x89PNG nothing")
    slide = read(folder)
    (library,) = slide.uns["spatial"].values()
    assert list(library["images"]) == ["lowres"]
    assert "left out: tissue_hires_image.png cannot be read" in told(slide)


def test_what_was_read_can_be_written_and_read_again(tmp_path):
    section = Section(names=("TBCE", "MBP", "TBCE", "GFAP"))
    slide = read(outs(tmp_path / "outs", section))
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = read(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), slide.X.toarray())
    first, second = (s.uns["sagefm"]["read"] for s in (slide, again))
    assert (second["source"], second["counts"]) == (first["source"], first["counts"])


def test_the_record_of_reading(tmp_path):
    slide = read(outs(tmp_path / "outs"))
    assert slide.uns["sagefm"]["read"] == {
        "source": str(tmp_path / "outs"),
        "counts": "filtered_feature_bc_matrix.h5",
        "slide_key": "",
        "n_spots": slide.n_obs,
        "told": [],
        "lost": [],
        "gene_names": known_gene_names().version,
        "version": sagefm.__version__,
    }


# --- Visium HD ---


def test_hd_reads_16_um_and_tells_the_others(tmp_path):
    folder = hd(tmp_path / "outs", (2, 8, 16))
    for path in (folder, tmp_path, folder / "binned_outputs"):
        slide = read(path)
        assert slide.n_obs == 36
        assert "bins of 16 µm are read" in told(slide)
        assert "8 µm (" in told(slide)
        assert "square_008um" in told(slide)
    assert told(read(folder / "binned_outputs" / "square_008um")) == ""


def test_hd_without_16_um_reads_the_largest(tmp_path):
    assert read(hd(tmp_path, (2, 8))).n_obs == 28


# --- loose files, as they come from GEO ---


def geo(folder, prefix, section, *, mtx=False):
    if mtx:
        write_mtx(folder, section, prefix=prefix)
    else:
        write_h5(folder / f"{prefix}filtered_feature_bc_matrix.h5", section)
    name = f"{prefix}tissue_positions_list.csv.gz"
    write_positions(folder / name, section, headed=False)
    write_pictures(folder, prefix, ".gz")


@pytest.mark.parametrize("mtx", [True, False])
def test_one_sample_of_loose_files(tmp_path, mtx):
    section = Section()
    geo(tmp_path, "GSM1_s12_", section, mtx=mtx)
    slide = read(tmp_path)
    assert_is(slide, section)
    library = slide.uns["spatial"]["GSM1_s12"]
    assert set(library["images"]) == {"hires", "lowres"}
    assert library["scalefactors"]["tissue_lowres_scalef"] == 0.1
    assert told(slide) == ""


@pytest.mark.parametrize("mtx", [True, False])
def test_several_samples_are_named_by_prefix(tmp_path, mtx):
    first, second = Section(n_spots=20), Section(n_spots=30)
    second.positions["pxl_row_in_fullres"] += 7
    geo(tmp_path, "GSM1_s1_", first, mtx=mtx)
    geo(tmp_path, "GSM1_s12_", second, mtx=mtx)
    match = r"holds 2 samples \(GSM1_s1, GSM1_s12\); name one, such as .*/GSM1_s1"
    with pytest.raises(InputError, match=match):
        read(tmp_path)
    assert_is(read(tmp_path / "GSM1_s1"), first)
    assert_is(read(tmp_path / "GSM1_s12"), second)
    assert_is(read(tmp_path / "GSM1_s12_"), second)
    with pytest.raises(InputError, match="does not exist; its folder has GSM1_s1, GSM1_s12"):
        read(tmp_path / "GSM3")


def test_a_sample_never_takes_the_positions_of_another(tmp_path):
    geo(tmp_path, "GSM1_s1_", Section())
    write_h5(tmp_path / "GSM2_s2_filtered_feature_bc_matrix.h5", Section())
    with pytest.raises(InputError, match="no tissue_positions file"):
        read(tmp_path / "GSM2_s2")


def test_a_prefixed_matrix_beside_a_plain_spatial_folder(tmp_path):
    section = Section()
    write_h5(tmp_path / "V1_Breast_filtered_feature_bc_matrix.h5", section)
    write_positions(tmp_path / "spatial" / "tissue_positions_list.csv", section, headed=False)
    assert_is(read(tmp_path), section)


def test_prefixed_spatial_folders(tmp_path):
    first, second = Section(n_spots=20), Section(n_spots=30)
    for prefix, section in (("GSM1_", first), ("GSM2_", second)):
        write_h5(tmp_path / f"{prefix}filtered_feature_bc_matrix.h5", section)
        file = tmp_path / f"{prefix}spatial" / "tissue_positions.csv"
        write_positions(file, section, headed=True)
    assert_is(read(tmp_path / "GSM2"), second)
    assert_is(read(tmp_path / "GSM1_filtered_feature_bc_matrix.h5"), first)


# --- real folders ---


@real
def test_space_ranger_1_with_ensembl_names():
    slide = read(SHARED / "fixtures" / "scanpy_visium_data" / "1.0.0")
    assert slide.shape == (100, 100)
    at = list(slide.obs_names).index("AAACACCAATAACTGC-1")
    positions = SHARED / "fixtures" / "scanpy_visium_data" / "1.0.0" / "spatial"
    line = re.search(
        r"AAACACCAATAACTGC-1,1,(\d+),(\d+),(\d+),(\d+)",
        (positions / "tissue_positions_list.csv").read_text(),
    )
    row, col, y, x = map(int, line.groups())
    assert list(slide.obsm["spatial"][at]) == [x, y]
    assert list(slide.obs.iloc[at][["array_row", "array_col"]]) == [row, col]
    assert "Ensembl ids" in told(slide)


@real
def test_space_ranger_1_mouse():
    slide = read(SHARED / "fixtures" / "seurat_visium_v1")
    assert slide.shape == (2695, 100)
    assert "look like mouse genes" in told(slide)


@real
def test_visium_hd():
    slide = read(SHARED / "fixtures" / "seurat_visium_hd")
    assert slide.n_obs == 642
    assert "bins of 16 µm are read" in told(slide)
    assert "2,053 of 2,695 barcodes have no position" in told(slide)
    at = read_positions(
        SHARED
        / "fixtures/seurat_visium_hd/binned_outputs/square_016um/spatial/tissue_positions.parquet"
    ).loc[slide.obs_names[5]]
    assert list(slide.obsm["spatial"][5]) == [at["pxl_col_in_fullres"], at["pxl_row_in_fullres"]]


@real
def test_space_ranger_2_with_12_spots():
    slide = read(SHARED / "fixtures" / "SFE_sample01")
    assert slide.shape == (12, 5)
    assert slide.obs_names[0] == "GTGGCGTGCACCAGAG-1"
    assert list(slide.obsm["spatial"][0]) == [19828, 3932]
    assert "the slide has 12 spots" in told(slide)


@real
def test_a_whole_transcriptome_is_the_slide_of_shared_data():
    slide = read(SHARED / "fixtures" / "human_MSTI_SR")
    assert slide.shape == (2172, 36591)
    assert "10 gene names are duplicated (TBCE" in told(slide)
    other = read(SHARED / "slides" / "breastDCIS_MSTI.h5ad")
    np.testing.assert_allclose(slide.obsm["spatial"], other.obsm["spatial"])
    assert slide.X.sum() == other.X.sum()
    assert slide.obs_names.equals(other.obs_names)
