"""The verb subtype, as a user types it."""

import os

import numpy as np
import pandas as pd
import pytest

import sagefm
from sagefm.pp.simulate import simulate

SLIDES = [f"s{i}.h5ad" for i in range(7)]


@pytest.fixture(scope="module")
def held():
    """Six patients of two subtypes, and one without."""
    slides = {}
    for i in range(7):
        slide = simulate(40, seed=i, biology_seed=i % 2, patient=f"p{i}", slide=f"s{i}")
        if i < 6:
            slide.obs["grade"] = ["low", "high"][i % 2]
        slides[f"s{i}"] = slide
    return slides


@pytest.fixture
def run(run, held, model):
    """Run `sagefm subtype ...` in a folder with seven slides and a model."""
    for name, slide in held.items():
        slide.write_h5ad(f"{name}.h5ad")
    model.save("m.safetensors")
    return lambda *words: run("subtype", *words, "-m", "m.safetensors", "--device", "cpu")


def test_patients_genes_and_pictures(run, held, model):
    words = ["--subtype-key", "grade", "--seed", 3, "-o", "o.csv", "--genes", "g.csv"]
    status, out, err = run(*SLIDES, *words, "--plot", "p")
    assert status == 0, err
    slides = {name: slide.copy() for name, slide in held.items()}
    wanted = sagefm.tl.subtype(slides, model, "grade", seed=3)
    assert out == f"o.csv: {wanted}\n"
    assert out.splitlines()[1].startswith("mean pooling: AUROC ")
    assert "more than chance: p = " in out.splitlines()[1]
    assert out.splitlines()[2].startswith("pseudobulk PCA: AUROC ")
    table = pd.read_csv("o.csv", index_col="patient")
    told, expected = (
        one.assign(truth=one["truth"].astype(object).fillna("")) for one in (table, wanted.patients)
    )
    pd.testing.assert_frame_equal(told, expected, rtol=1e-4, check_dtype=False)
    genes = pd.read_csv("g.csv")
    pd.testing.assert_frame_equal(genes, wanted.genes, rtol=1e-4, atol=1e-8, check_dtype=False)
    pictures = ["patients.png", *(f"s{i}.png" for i in range(7))]
    assert sorted(os.listdir("p")) == pictures
    assert all(os.path.getsize(f"p/{name}") > 10_000 for name in pictures)


def test_subtypes_and_patients_from_a_table(run):
    facts = {"slide": [f"s{i}" for i in range(7)], "patient": list("aabcdef")}
    facts["kind"] = ["x", "x", "y", "x", "y", "x", "y"]
    pd.DataFrame(facts).to_csv("t.csv", index=False)
    words = ["--table", "t.csv", "--subtype-key", "kind", "--pooling", "quantiles"]
    status, out, err = run(*SLIDES, *words, "-o", "o.csv")
    assert status == 0, err
    assert out.startswith("o.csv: 6 patients (x 3, y 3), one left out at a time\nquantiles ")
    table = pd.read_csv("o.csv", index_col="patient")
    assert table["n_slides"].to_dict() == dict.fromkeys("abcdef", 1) | {"a": 2}
    assert table["truth"].tolist() == list("xyxyxy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*SLIDES, "-o", "o.h5ad", "--subtype-key", "grade"], "o.h5ad: give it a name that ends"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "kind"], "obs['kind']: no slide has such a"),
        ([*SLIDES, "-o", "o.csv"], "--subtype-key"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "patient"], "of at least 3 patients"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "domain"], "s0: obs['domain'] has several"),
        ([*SLIDES[:5], "-o", "o.csv", "--subtype-key", "grade"], "there is high 2, low 3"),
        ([*SLIDES, "s0.h5ad", "-o", "o.csv", "--subtype-key", "grade"], "a second slide called"),
        ([*SLIDES, "none.h5ad", "-o", "o.csv", "--subtype-key", "grade"], "none.h5ad"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "grade", "--table", "no.csv"], "no.csv"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "grade", "--pooling", "max"], "max"),
        ([*SLIDES, "-o", "o.csv", "--subtype-key", "grade", "--plot", "s0.h5ad"], "s0.h5ad"),
    ],
)
def test_bad_input_is_one_clear_line(run, words, said):
    before = sorted(os.listdir())
    status, out, err = run(*words)
    assert status == 2
    told = err.splitlines()
    assert said in told[-1]
    assert sum(line.startswith("error: ") for line in told) == 1
    assert not out
    assert sorted(os.listdir()) == before


def test_a_log_normalized_slide_is_named(run, held):
    logs = held["s2"].copy()
    logs.X = logs.X.log1p() * np.float32(0.7)
    logs.write_h5ad("s2.h5ad")
    status, _, err = run(*SLIDES, "-o", "o.csv", "--subtype-key", "grade")
    assert status == 2
    assert "s2.h5ad: X holds" in err.splitlines()[-1]
