"""The verb map, as a user types it."""

import anndata as ad
import pytest

from sagefm.pp.simulate import simulate

HOW = ["--reference", "p0.h5ad", "p1.h5ad", "--key", "domain"]


@pytest.fixture
def mapping(run, tmp_path):
    for i in range(4):
        slide = simulate(120, n_domains=3, seed=i, patient=f"p{i}")
        slide.write_h5ad(tmp_path / f"p{i}.h5ad")
    return lambda *words: run("map", *words)


def test_one_slide_is_written_to_a_file(mapping):
    status, out, err = mapping("p2.h5ad", *HOW, "-o", "o.h5ad")
    assert status == 0, err
    assert "p2: 120 spots, " in out
    assert "sagefm_mapped" in ad.read_h5ad("o.h5ad").obs


def test_several_slides_are_written_to_a_folder(mapping):
    status, _, err = mapping("p2.h5ad", "p3.h5ad", *HOW, "-o", "out")
    assert status == 0, err
    for name in ("p2", "p3"):
        assert "sagefm_mapped_confidence" in ad.read_h5ad(f"out/{name}.h5ad").obs


def test_a_slide_of_the_reference_is_refused(mapping):
    status, _, err = mapping("p1.h5ad", *HOW, "-o", "o.h5ad")
    assert status == 2
    assert err.startswith("error: p1.h5ad: is among the slides and the reference")


def test_several_slides_need_a_folder(mapping):
    status, _, err = mapping("p2.h5ad", "p3.h5ad", *HOW, "-o", "o.h5ad")
    assert status == 2
    assert "name a folder for 2 slides" in err
