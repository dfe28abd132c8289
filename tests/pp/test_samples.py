import os
import shutil
from pathlib import Path

import pytest
from tests.pp.folders import Section, a_slide, hd, outs, write_h5, write_positions, write_zarr

from sagefm import InputError, read


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.h5ad", "a.h5", "matrix.mtx", "a.zarr", "folder"])
def test_a_pipe_is_refused_and_never_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "is a pipe or a device" in refused(tmp_path / name)


def test_a_device_is_refused(tmp_path):
    (tmp_path / "a.h5ad").symlink_to("/dev/zero")
    assert "is a pipe or a device" in refused(tmp_path / "a.h5ad")


def test_a_pipe_in_a_folder_is_not_one_of_its_files(tmp_path):
    folder = outs(tmp_path)
    os.mkfifo(folder / "raw_feature_bc_matrix.h5")
    for name in ("tissue_hires_image.png", "scalefactors_json.json"):
        (folder / "spatial" / name).unlink()
        os.mkfifo(folder / "spatial" / name)
    (library,) = read(folder).uns["spatial"].values()
    assert list(library["images"]) == ["lowres"]
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    assert "no count matrix" in refused(folder)


def test_a_pipe_in_a_zarr_is_named(tmp_path):
    write_zarr(tmp_path / "a.zarr", a_slide())
    os.mkfifo(tmp_path / "a.zarr" / "obsm" / "pipe")
    assert "obsm/pipe, which is no file" in refused(tmp_path / "a.zarr")


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "gone.h5ad").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name in ("gone.h5ad", "round", "round/filtered_feature_bc_matrix.h5"):
        assert "does not exist" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.h5ad/x", "a.h5ad/x.h5ad", "a\0b", "a\0b.h5ad"])
def test_names_that_no_file_can_have(tmp_path, name):
    a_slide().write_h5ad(tmp_path / "a.h5ad")
    assert "does not exist" in refused(tmp_path / name) or "\0" in name


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".h5ad", "x/" * 3000])
def test_a_name_that_is_too_long(tmp_path, name):
    refused(tmp_path / name)


@pytest.fixture
def locked(monkeypatch):
    """Refuse entry to folders called ``locked``, to root too."""
    entered = Path.iterdir

    def iterdir(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return entered(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def test_a_folder_that_may_not_be_entered(tmp_path, locked):
    outs(tmp_path / "locked")
    assert "check its permissions" in refused(tmp_path / "locked")
    outs(tmp_path / "free")
    assert "a folder of 1 slide (free); name one" in refused(tmp_path)


def test_a_matrix_that_may_not_be_read(tmp_path, monkeypatch):
    folder = outs(tmp_path)
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr("sagefm.pp.tenx.content", lambda _: (_ for _ in ()).throw(denied))
    monkeypatch.setattr("sagefm.pp.positions.content", lambda _: (_ for _ in ()).throw(denied))
    message = refused(folder)
    assert "tissue_positions.csv cannot be read" in message
    assert message.endswith("check its permissions")


def test_a_folder_of_folders_of_bins(tmp_path):
    hd(tmp_path / "run" / "outs", (8, 16))
    root = tmp_path / "run" / "outs" / "binned_outputs"
    for named in (root, root.parent, root.parent.parent, root / "square_016um"):
        assert read(named).n_obs == 36
    assert "a folder of 1 slide (run); name one" in refused(tmp_path)


def test_a_folder_of_thousands_of_files(tmp_path):
    folder = outs(tmp_path)
    for number in range(2000):
        (folder / f"tile{number}.txt").touch()
    assert read(folder).n_obs == 30


def test_hidden_files_of_a_mac_are_no_samples(tmp_path):
    folder = outs(tmp_path)
    for name in ("._filtered_feature_bc_matrix.h5", "spatial/._tissue_positions.csv"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert read(folder).n_obs == 30


def test_filtered_spots_come_first(tmp_path):
    folder = outs(tmp_path)
    for name in ("raw_feature_bc_matrix", "raw_feature_cell_matrix", "raw_probe_bc_matrix"):
        write_h5(folder / f"{name}.h5", Section(40))
    write_h5(folder / "filtered_feature_cell_matrix.h5", Section(40))
    assert read(folder).n_obs == 30


def test_places_on_the_array_that_are_no_whole_numbers_stay(tmp_path):
    section = Section()
    folder = outs(tmp_path, section)
    section.positions["array_row"] += 0.25
    write_positions(folder / "spatial" / "tissue_positions.csv", section, headed=True)
    slide = read(folder)
    assert slide.obs["array_row"].iloc[0] == 0.25
    assert slide.obs["array_col"].dtype.kind == "i"


# --- zarr folders of other libraries ---


def spatialdata(folder, table):
    """Make a SpatialData folder with one table at a place in it."""
    write_zarr(folder.with_suffix(".table"), a_slide())
    (folder / "shapes" / "spots").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    shutil.move(folder.with_suffix(".table"), folder / table)
    return folder


@pytest.mark.parametrize("place", ["tables", "table"])
def test_the_table_of_a_spatialdata_of_any_age(tmp_path, place):
    folder = spatialdata(tmp_path / "a.zarr", f"{place}/table")
    assert read(folder).n_obs == 30
    shutil.copytree(folder / place / "table", folder / place / "bins")
    assert f"holds 2 tables (bins, table); name one, such as {folder / place}" in refused(folder)
    assert read(folder / place / "bins").n_obs == 30
    shutil.make_archive(str(folder), "zip", folder)
    assert "no AnnData is at its root: unpack it" in refused(tmp_path / "a.zarr.zip")
    shutil.rmtree(folder / place)
    assert "is a SpatialData without a table" in refused(folder)


def test_a_mudata_names_its_modalities(tmp_path):
    folder = spatialdata(tmp_path / "a.zarr", "mod/rna")
    (folder / "mod" / "prot").mkdir()
    assert f"modalities prot, rna; name the one with the genes, such as {folder}" in refused(folder)
    assert read(folder / "mod" / "rna").n_obs == 30
