import gzip
import io
import json

import h5py
import numpy as np
import pytest
from scipy.io import mmwrite
from scipy.sparse import csc_matrix
from tests.pp.folders import SHARED, Section, outs, told, write_h5, write_mtx, write_positions

from sagefm import InputError, read
from sagefm.pp.tenx import read_matrix

NAME = "filtered_feature_bc_matrix"


def changed(folder, name, change):
    """Make a folder whose matrix has one array changed."""
    path = outs(folder) / f"{NAME}.h5"
    with h5py.File(path, "r+") as file:
        values = file[f"matrix/{name}"][()]
        del file[f"matrix/{name}"]
        if change is not None:
            file[f"matrix/{name}"] = change(values)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("indices", lambda v: np.where(v == 7, 10**9, v), "indices go from 0 to 1,000,000,000"),
        ("indptr", lambda v: v[::-1], "indptr does not rise"),
        ("shape", lambda v: v.astype(np.int64) * 10**11, "800,000,000,000 genes × 3"),
        ("shape", lambda v: v[::-1], "30 genes × 8 spots, but it lists 8 and 30"),
        ("barcodes", lambda v: v[1:], "it lists 8 and 29"),
        ("barcodes", lambda v: np.array([b"\xff%d" % i for i in range(30)]), "can't decode"),
        ("features/name", lambda v: v[1:], "7 names of 8 features"),
        ("features/id", lambda v: v[1:], "same length"),
        ("data", lambda v: v - 1000, "negative values"),
        ("data", None, "it has no data"),
        ("features/id", None, "it has no id"),
    ],
)
def test_a_damaged_h5_is_refused_before_it_is_used(tmp_path, name, change, words):
    with pytest.raises(InputError, match=rf"{NAME}\.h5.*(?:{words})") as caught:
        read(changed(tmp_path, name, change))
    assert "\n" not in str(caught.value)


def test_an_h5_of_version_2_is_checked_too(tmp_path):
    path = write_h5(tmp_path / f"{NAME}.h5", Section(), version=2)
    with h5py.File(path, "r+") as file:
        file["GRCh38/indices"][0] = 99
    with pytest.raises(InputError, match="outside of 8 columns"):
        read_matrix(path, [])


def test_a_feature_without_a_symbol_has_its_id(tmp_path):
    folder = changed(tmp_path, "features/name", lambda v: np.array([b"", *v[1:]]))
    assert read(folder).var_names[0] == "ENSG00000000000"


def mtx(folder, text=None, section=None):
    section = section or Section()
    write_mtx(folder / NAME, section, gz=False)
    write_positions(folder / "spatial" / "tissue_positions.csv", section, headed=True)
    path = folder / NAME / "matrix.mtx"
    if text is not None:
        path.write_bytes(text(path.read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda t: t.replace(b"8 30 240", b"1000000000000 30 240"), "list 8 and 30"),
        (lambda t: t.replace(b"8 30 240", b"8 30 1000000000000"), "too short for 1,000,000,000"),
        (lambda t: t.replace(b"8 30 240", b"8 30 241"), "cannot be read"),
        (lambda t: t.replace(b"\n1 1 ", b"\n9 1 "), "cannot be read"),
        (lambda t: t.replace(b"\n1 1 ", b"\n1 1 -"), "negative values"),
        (lambda t: t.replace(b"\n1 1 ", b"\n1 1 9999999"), "more than any gene"),
        (lambda t: t.replace(b"integer", b"pattern"), "type pattern"),
        (lambda t: t.replace(b"integer", b"complex"), "type complex"),
        (lambda t: t.replace(b"general", b"symmetric"), "a symmetric matrix"),
        (lambda t: t.replace(b"\n1 10 ", b"\n1 10\0"), "it is no text"),
        (lambda t: t[:300], "cannot be read"),
        (lambda t: gzip.compress(t)[:300], "cannot be read"),
    ],
)
def test_a_damaged_mtx_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=rf"matrix\.mtx.*{words}") as caught:
        read(mtx(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["transposed", "dense", "real"])
def test_other_forms_of_an_mtx_are_the_same_matrix(tmp_path, form):
    section = Section()
    stored = io.BytesIO()
    counts = section.counts if form == "transposed" else section.counts.T
    mmwrite(
        stored, counts if form == "dense" else csc_matrix(counts * (1.0 if form == "real" else 1))
    )
    slide = read(mtx(tmp_path, lambda _: stored.getvalue(), section))
    np.testing.assert_array_equal(slide.X.toarray(), section.counts)
    assert ("has a row per spot" in told(slide)) == (form == "transposed")


def test_a_damaged_list_is_named(tmp_path):
    folder = mtx(tmp_path)
    (folder / NAME / "features.tsv").write_bytes(b"\xff\xfe\n" * 8)
    with pytest.raises(InputError, match=r"features\.tsv cannot be read"):
        read(folder)


def test_odd_scale_factors_are_left_out(tmp_path):
    folder = outs(tmp_path)
    factors = {"tissue_hires_scalef": 0.5, "a": None, "b": [1], "c": float("nan"), "d": -1}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    slide = read(folder)
    (library,) = slide.uns["spatial"].values()
    assert library["scalefactors"] == {"tissue_hires_scalef": 0.5}
    assert "left out of scalefactors_json.json, as no positive numbers: a, b, c, …" in told(slide)


def probes(folder):
    """Make a matrix of probes: three of one gene, one of them and one spot not used."""
    section = Section(
        names=("A|1", "A|2", "A|3", "B|1"), ids=("G1|A|1", "G1|A|2", "G1|A|3", "G2|B|1")
    )
    path = write_h5(folder / "raw_probe_bc_matrix.h5", section)
    with h5py.File(path, "r+") as file:
        features = file["matrix/features"]
        features["gene_id"] = np.array([b"G1", b"G1", b"G1", b"G2"])
        features["gene_name"] = np.array([b"A", b"A", b"A", b"B"])
        features["filtered_probes"] = np.array([True, True, False, True])
        file["matrix/filtered_barcodes"] = np.arange(30) > 0
    write_positions(folder / "spatial" / "tissue_positions.csv", section, headed=True)
    return path, section


def test_probes_are_summed_by_gene_as_space_ranger_does(tmp_path):
    path, section = probes(tmp_path)
    for named in (path, tmp_path):
        slide = read(named)
        assert list(slide.var_names) == ["A", "B"]
        assert list(slide.var["gene_ids"]) == ["G1", "G2"]
        wanted = np.c_[section.counts[1:, :2].sum(axis=1), section.counts[1:, 3]]
        np.testing.assert_array_equal(slide.X.toarray(), wanted)
        assert "the 3 of 4 that Space Ranger uses are summed by gene, on its 29 of 30" in told(
            slide
        )


def test_a_matrix_of_genes_is_preferred_to_one_of_probes(tmp_path):
    outs(tmp_path)
    probes(tmp_path)
    assert read(tmp_path).n_vars == 8


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real fixtures of shared/data are not here")
def test_a_real_matrix_of_probes():
    path = SHARED / "fixtures" / "probe_matrix_mouse" / "raw_probe_bc_matrix.h5"
    matrix, barcodes, var = read_matrix(path, [])
    assert matrix.shape == (len(barcodes), len(var)) == (2348, 682)
    assert "Gnai3" in var.index
    assert not var.index.str.contains(r"\|").any()
