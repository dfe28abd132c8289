import gzip
import os
import shutil
import subprocess
import sys
from importlib import import_module

import h5py
import numpy as np
import pytest
from tests.pp.folders import Section, a_slide, told, write_h5, write_positions
from tests.pp.test_read import refused, write_zarr

from sagefm import InputError, read
from sagefm.pp import container


def slide_file(tmp_path, name="a.h5ad"):
    slide = a_slide()
    slide.obs["label"] = np.array(["a", "b"] * 15)
    slide.layers["other"] = slide.X.copy()
    slide.write_h5ad(tmp_path / "made.h5ad")
    return (tmp_path / "made.h5ad").rename(tmp_path / name)


@pytest.mark.parametrize("name", ["a.h5", "a.csv", "a", "a.zarr", "filtered_feature_bc_matrix.h5"])
def test_the_content_tells_an_anndata(tmp_path, name):
    assert read(slide_file(tmp_path, name)).shape == (30, 8)


def test_the_content_tells_a_matrix_of_10x(tmp_path):
    section = Section()
    write_h5(tmp_path / "m.h5", section).rename(tmp_path / "m.h5ad")
    write_positions(tmp_path / "spatial" / "tissue_positions.csv", section, headed=True)
    assert read(tmp_path / "m.h5ad").shape == (30, 8)


def test_the_genes_of_a_mudata_are_read(tmp_path):
    path = slide_file(tmp_path)
    with h5py.File(path) as file, h5py.File(tmp_path / "a.h5mu", "w") as whole:
        whole.attrs["encoding-type"] = "MuData"
        for name in ("rna", "prot"):
            file.copy(file["/"], whole, f"mod/{name}")
        file.copy("obs", whole)
        file.copy("obsm", whole)
        del whole["mod/rna/obsm/spatial"]
    slide = read(tmp_path / "a.h5mu")
    np.testing.assert_array_equal(slide.obsm["spatial"], a_slide().obsm["spatial"])
    assert "the modality 'rna' of the file is read; prot in obsm['antibody_capture']" in told(slide)
    with h5py.File(tmp_path / "a.h5mu", "a") as whole:
        whole.move("mod/rna", "mod/one")
    assert "holds the modalities one, prot" in refused(tmp_path / "a.h5mu")


def test_files_of_other_programs_are_named(tmp_path):
    with h5py.File(tmp_path / "a.loom", "w") as file:
        file.create_group("row_attrs")
        file.create_group("col_attrs")
    assert "is a file of loom" in refused(tmp_path / "a.loom")
    (tmp_path / "b.h5ad").write_bytes(gzip.compress(b"something"))
    assert "is compressed; run gunzip" in refused(tmp_path / "b.h5ad")


@pytest.mark.parametrize("place", ["layers/other", "X", "uns/far"])
def test_links_to_other_files_are_not_followed(tmp_path, place):
    path, far = slide_file(tmp_path), slide_file(tmp_path, "far.h5ad")
    with h5py.File(path, "a") as file:
        if place in file:
            del file[place]
        file[place] = h5py.ExternalLink(far, "X")
    assert f"/{place} is a link to another file" in refused(path)


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_values_in_other_files_are_not_read(tmp_path, kind):
    path = slide_file(tmp_path)
    with h5py.File(path, "a") as file:
        if kind == "external":
            (tmp_path / "secret").write_bytes(b"0123456789")
            place = [(tmp_path / "secret", 0, 10)]
            file["uns"].create_dataset("v", shape=(10,), dtype="i1", external=place)
        else:
            layout = h5py.VirtualLayout(shape=(3,), dtype="f4")
            layout[:] = h5py.VirtualSource(tmp_path / "far.h5", "x", shape=(3,))
            file["uns"].create_virtual_dataset("v", layout)
    assert "/uns/v has its values in another file" in refused(path)


def test_loops_and_links_to_nothing(tmp_path):
    path = slide_file(tmp_path)
    with h5py.File(path, "a") as file:
        file["uns/loop"] = file["/"]
    assert "holds itself" in refused(path)
    with h5py.File(path, "a") as file:
        del file["uns/loop"]
        file["uns/soft"] = h5py.SoftLink("/nothing")
    assert "/uns/soft is a link to nothing" in refused(path)
    with h5py.File(path, "a") as file:
        del file["uns/soft"]
        file["layers/same"] = h5py.SoftLink("/X")
        file["uns/" + "/".join("d" * 70)] = 1
    assert "lies 60 groups deep" in refused(path)
    with h5py.File(path, "a") as file:
        del file["uns/d"]
    assert set(read(path).layers) - {None} == {"other", "same"}


@pytest.mark.parametrize("where", ["obsm/b", "uns/b"])
def test_an_array_that_cannot_be_in_the_file_is_not_read(tmp_path, where):
    path = slide_file(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset(where, shape=(30, 10**11), dtype="f8", chunks=(30, 100))
    assert f"/{where} claims 24,000.0 GB, of which 0 bytes are stored" in refused(path)


def test_a_slide_that_does_not_fit_into_memory_is_told_its_size(tmp_path, monkeypatch):
    path = slide_file(tmp_path)
    monkeypatch.setattr(container, "_memory", lambda: 1000)
    assert "of memory (most of it for /" in refused(path)

    def fail(*_):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.undo()
    monkeypatch.setattr(import_module("sagefm.pp.read"), "find_counts", fail)
    assert "needs more memory than there is (Unable to allocate 7 TiB)" in refused(path)


def test_damaged_tables_are_one_line(tmp_path):
    path = slide_file(tmp_path)
    whole = path.read_bytes()

    def text(values):
        return np.array(values, dtype=object)

    names = h5py.File(path)["obs"].attrs["_index"]
    changes = {
        "obs/label/codes": np.full(30, 100, np.int8),
        "obs/label/categories": text([b"a\xff", b"b"]),
        f"obs/{names}": text([b"x"] * 20),
        "obsm/spatial": np.ones((20, 2)),
        "X/indices": np.arange(3.0),
    }
    for place, values in changes.items():
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            attributes = dict(file[place].attrs)
            del file[place]
            kind = h5py.string_dtype() if values.dtype == object else None
            file.create_dataset(place, data=values, dtype=kind).attrs.update(attributes)
        refused(path)


def test_texts_without_an_end_do_not_hang(tmp_path):
    path = slide_file(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)
    assert "a heap of texts has no end" in refused(path)


FLIPS = """
import sys, numpy as np, warnings, faulthandler, logging
warnings.simplefilter("ignore")
logging.disable(50)
from pathlib import Path
from sagefm import InputError, read
path = Path(sys.argv[1])
whole = path.read_bytes()
rng = np.random.default_rng(int(sys.argv[2]))
for trial in range(40):
    data = bytearray(whole)
    for at in rng.integers(0, len(data), rng.choice([1, 8, 100])):
        data[at] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    try:
        read(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
print("alive")
"""


def test_flipped_bits_neither_end_the_process_nor_give_raw_errors(tmp_path):
    path = slide_file(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, path, "3"],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.stdout.endswith("alive\n"), done.stderr[-2000:]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning")
@pytest.mark.parametrize("version", [2, 3])
def test_links_out_of_a_zarr_folder_are_not_followed(tmp_path, version):
    slide = a_slide()
    slide.layers["other"] = slide.X.copy()
    path = write_zarr(tmp_path / "a.zarr", slide, version)
    (path / "layers" / "same").symlink_to("other")
    assert read(path).shape == (30, 8)
    (path / "layers" / "same").unlink()
    shutil.move(path / "layers", tmp_path / "far")
    (path / "layers").symlink_to(tmp_path / "far")
    assert "layers is a link to another place" in refused(path)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning")
def test_a_zarr_array_that_cannot_be_in_the_folder_is_not_read(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = write_zarr(tmp_path / "a.zarr", a_slide(), 3)
    nested = shutil.make_archive(str(tmp_path / "nested"), "zip", tmp_path, "a.zarr")
    assert read(nested).shape == (30, 8)
    group = zarr.open_group(path, mode="a", use_consolidated=False)
    group["X/indices"][3] = 10**6
    assert "X is damaged: it has an index" in refused(path)
    group["obsm"].create_array("b", shape=(30, 10**12), chunks=(30, 100), dtype="f8")
    zarr.consolidate_metadata(path)
    assert "obsm/b claims 240,000.0 GB" in refused(path)


def test_paths_that_are_none(tmp_path):
    for path in ("a\0b", tmp_path / f"{'x' * 3000}.h5ad"):
        with pytest.raises(InputError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
    os.mkfifo(tmp_path / "pipe.h5ad")
    refused(tmp_path / "pipe.h5ad")


def test_line_breaks_of_names_and_libraries_are_no_lines(tmp_path):
    path = slide_file(tmp_path, "a\nb.h5ad")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{tmp_path}/a b.h5ad: cannot be read (")
    assert "\n" not in str(caught.value)
    assert str(InputError("one\r\n two\u2028three")) == "one two three"
