"""The verb outcome, as a user types it."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sagefm import cli
from sagefm._strays import HOST
from sagefm.pp.simulate import simulate
from sagefm.tl.outcomes import RESEARCH_USE

PATIENTS = [f"MRN-47{i:02}-Doe" for i in range(12)]
SLIDES = [f"ACC-08{i:02}-Roe.h5ad" for i in range(12)]
WORDS = ["--time", "months", "--event", "dead", "--clinical", "age", "--key", "cell type"]


def call(*words):
    """Run a command: status and what it prints."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["sagefm", *map(str, words)]
    try:
        with (
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stopped,
        ):  # fmt: skip
            cli.main()
    finally:
        sys.argv = before
    return stopped.value.code or 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory, context_model):
    """A folder with slides of twelve patients, a table and a model."""
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    for i, (patient, name) in enumerate(zip(PATIENTS, SLIDES, strict=True)):
        slide = simulate(30, seed=i, patient=patient, slide=name)
        slide.obs["cell type"] = pd.Categorical(rng.choice(["A", "B"], slide.n_obs))
        slide.write_h5ad(folder / name)
    rows = {"patient": PATIENTS, "months": rng.exponential(20, 12).round(1) + 0.1}
    rows |= {"dead": [1] * 10 + [0] * 2, "age": rng.normal(60, 8, 12).round()}
    rows |= {"response": ["no", "yes"] * 6, "rare": ["a"] * 9 + ["b"] * 3}
    pd.DataFrame(rows).to_csv(folder / "patients.csv", index=False)
    context_model.save(folder / "m.safetensors")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def finished(place):
    """What the command prints, and the folder that it fills."""
    words = ["--table", "patients.csv", *WORDS, "-m", "m.safetensors", "--permutations", 19]
    status, out, err = call(
        "outcome", *SLIDES, *words, "--suppress-below", 11, "-o", "out", "--debug"
    )
    assert status == 0, err
    return out, err, place / "out"


def test_tables_pictures_and_a_summary(finished):
    out, _, folder = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {"scores", "patients", "features", "curve", "permuted", "spots", "domains"}
    assert {f"{name}.csv" for name in tables} <= files
    assert {"summary.txt", "outcome.png", "maps/slides.csv"} <= files
    assert {f"maps/slide_{i:03}.png" for i in range(1, 13)} <= files
    patients = pd.read_csv(folder / "patients.csv")
    assert set(patients["patient"]) == set(PATIENTS)
    spots = pd.read_csv(folder / "spots.csv")
    assert len(spots) == 12 * 30
    assert {"clinical", "pseudobulk", "embedding mean"} < set(
        pd.read_csv(folder / "scores.csv")["set"]
    )
    assert pd.read_csv(folder / "maps/slides.csv")["slide"].tolist() == [
        name.removesuffix(".h5ad") for name in SLIDES
    ]
    assert out.startswith("out: ")
    assert out.removeprefix("out: ") == (folder / "summary.txt").read_text()


def test_every_output_says_that_it_is_for_research_only(finished):
    out, _, folder = finished
    assert out.splitlines()[-1] == RESEARCH_USE
    for name in ("scores", "patients", "features", "curve", "permuted", "spots", "domains",
                 "maps/slides"):  # fmt: skip
        assert pd.read_csv(folder / f"{name}.csv")["note"][0] == RESEARCH_USE


def test_names_of_patients_are_in_their_table_only(finished):
    out, err, folder = finished
    patient, slide = re.compile(rb"MRN-47|-Doe"), re.compile(rb"ACC-08|-Roe")
    either = re.compile(b"|".join([patient.pattern, slide.pattern]))
    assert not either.search(f"{out}{err}".encode())
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert not [name for name in files if either.search(name.encode())]
    assert {name for name, data in files.items() if patient.search(data)} == {"patients.csv"}
    assert {name for name, data in files.items() if slide.search(data)} == {
        "spots.csv", "domains.csv", "maps/slides.csv",
    }  # fmt: skip


def test_small_numbers_of_patients_are_suppressed(finished):
    scores = pd.read_csv(finished[2] / "scores.csv")
    assert set(scores["n_events"]) == {"<11"}
    assert set(scores["n_patients"]) == {12}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the outcome: --target COLUMN, or --time COLUMN and --event COLUMN"),
        (["--target", "response", "--time", "months"], "name the outcome"),
        (["--time", "months"], "name the outcome"),
        (["--target", "nothing"], "has no column 'nothing'"),
        (["--target", "rare"], "10 patients of each class are needed"),
        ([*WORDS, "--key", "nothing"], "has no obs column 'nothing'"),
        (["--target", "response", "--gene-sets", "none.gmt"], "none.gmt"),
        (["--target", "response", "--site", "nothing"], "has no column 'nothing'"),
        (["--target", "response", "--permutations", "0"], "--permutations"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place, words, message):
    some = ["outcome", *SLIDES[:2], "--table", "patients.csv", "-m", "m.safetensors", "-o", "bad"]
    status, out, err = call(*some, *words)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith("slide ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (place / "bad").exists()


def test_neither_a_result_nor_the_table_is_overwritten(place, finished):
    some = ["outcome", *SLIDES, "--table", "patients.csv", "--target", "response", "-o"]
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    status, _, err = call(*some, "out", "-m", "none.safetensors")
    assert status == 2
    assert "out: holds files already; choose another place, or add --overwrite" in err
    status, _, err = call(*some, ".", "--overwrite")
    assert status == 2
    assert "patients.csv: would be overwritten by the result; choose another folder" in err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_the_help_has_examples():
    status, out, _ = call("outcome", "--help")
    assert status == 0
    assert "--table patients.csv --time months --event dead -o" in " ".join(out.split())


def test_what_a_killed_process_has_left_is_removed(place):
    left = Path("killed", f".outcome-{HOST}.{2**22 + 1}.ab12.x")
    running = Path("killed", f".outcome-{HOST}.{os.getpid()}.ab12.x")
    for folder in (left, running):
        folder.mkdir(parents=True)
    (left / "patients.csv").write_text(PATIENTS[0])
    words = ["--table", "patients.csv", "--target", "response", "-m", "m.safetensors"]
    status, _, err = call("outcome", *SLIDES[:2], *words, "-o", "killed")
    assert (status, left.exists(), running.exists()) == (2, False, True)
    assert "holds files already" in err
