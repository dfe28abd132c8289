"""Files that HDF5 can hold and no slide is."""

import sys

import h5py
import numpy as np
import pytest
from tests.pp.folders import Section, a_slide, outs

from sagefm import InputError, read


def test_what_no_check_foresees_is_one_line_too(tmp_path, monkeypatch):
    a_slide().write_h5ad(tmp_path / "a.h5ad")

    def fail(*_):
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(sys.modules["sagefm.pp.read"], "find_counts", fail)
    with pytest.raises(InputError, match=r"a\.h5ad: cannot be read \(first\)") as refused:
        read(tmp_path / "a.h5ad")
    assert "\n" not in str(refused.value)


def test_categories_of_another_shape_are_no_sections(tmp_path):
    slide = a_slide()
    slide.obs["slide"] = "one"
    slide.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        values = file["obs/slide/categories"][()]
        attributes = dict(file["obs/slide/categories"].attrs)
        del file["obs/slide/categories"]
        file["obs/slide/categories"] = values[:, None]
        file["obs/slide/categories"].attrs.update(attributes)
    try:
        assert len(read(tmp_path / "a.h5ad")) == slide.n_obs
    except InputError as error:
        assert "a.h5ad" in str(error)


def test_a_heap_without_end_in_a_matrix_of_10x_is_refused(tmp_path):
    folder = outs(tmp_path, Section())
    path = folder / "filtered_feature_bc_matrix.h5"
    data = bytearray(path.read_bytes())
    at = data.find(b"GCOL\x01\0\0\0")
    assert at > 0
    data = data[: at + 16] + np.zeros(len(path.read_bytes()) - at - 16, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="a heap of texts has no end"):
        read(folder)
