"""The verb describe, as a user types it."""

import os

import pandas as pd
import pytest

from sagefm.pp.simulate import simulate


@pytest.fixture(scope="module")
def cohort():
    return [simulate(120, n_domains=3, seed=i, slide=f"s{i}") for i in range(2)]


@pytest.fixture
def run(run, cohort):
    for i, slide in enumerate(cohort):
        slide.write_h5ad(f"s{i}.h5ad")
    return lambda *words: run("describe", *words)


def test_tables_and_pictures_of_two_slides(run):
    pd.DataFrame({"slide": ["s0", "s1"], "patient": ["a", "b"], "arm": ["x", "y"]}).to_csv("t.csv")
    words = ["--key", "domain", "--table", "t.csv", "--condition-key", "arm"]
    status, out, err = run("s0.h5ad", "s1.h5ad", "-o", "o", *words)
    assert status == 0, err
    assert out.startswith("D1: ")
    assert len(out.splitlines()) == 3
    sections = pd.read_csv("o/sections.csv")
    assert dict(zip(sections["section"], sections["patient"], strict=True)) == {
        "s0": "a", "s1": "b",
    }  # fmt: skip
    assert set(sections["condition"]) == {"x", "y"}
    for picture in ("markers.png", "contacts.png"):
        assert os.path.getsize(f"o/{picture}") > 10_000
    status, _, err = run("s0.h5ad", "-o", "o", "--key", "domain")
    assert status == 2
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "o"], "s0.h5ad: obs has no 'sagefm_domain'"),
        (["-o", "o", "--key", "slide"], "s0.h5ad: obs['slide']: has only s0"),
        (["-o", "o.csv", "--key", "domain"], "o.csv: name a folder"),
        (["-o", "o", "--key", "domain", "--names", "brian"], "'brian': no group of marker sets"),
        (["-o", "o", "--key", "domain", "--table", "none.csv"], "none.csv"),
        (["-o", "o", "--key", "domain", "--patient-key", "x"], "--patient-key x: obs has"),
        (["-o", "o", "--key", "domain", "--slide-key", "lane"], "'lane'"),
    ],
)
def test_bad_input_is_one_clear_line(run, words, said):
    status, out, err = run("s0.h5ad", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not os.path.exists("o")
