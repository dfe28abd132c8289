"""The learning curve: who is trained on, what is fitted, and that nothing is done twice."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sagefm import SageFM
from sagefm.model import Config
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def curve(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("learning_curve")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(module, "N_SAMPLES", 20)
    matplotlib.use("Agg")
    return module


@pytest.fixture
def table(curve):
    """The patients that are tested on, six of one kind, and nine of as many kinds."""
    rows = [(name, f"tested {name}", "breast", "Visium", 900) for name in curve.TESTED]
    rows += [(f"b{i}", f"breast {i // 2}", *curve.KIND, 300) for i in range(12)]
    rows += [(f"o{i}", f"other {i}", f"organ {i}", "Visium", 2000) for i in range(9)]
    columns = ["slide", "patient", "organ", "technology", "spots"]
    return pd.DataFrame(rows, columns=columns)


def test_draws_are_nested_and_nobody_is_trained_and_tested_on(curve, table):
    drawn = curve.choices(table, 3)
    assert len(drawn) == 3 * (len(curve.SIZES) + 2)
    for draw in range(3):
        largest = drawn[f"patients_15_{draw}"]
        assert len(set(largest)) == 15
        for n in curve.SIZES:
            assert drawn[f"patients_{n}_{draw}"] == largest[:n]
        one, many = drawn[f"one_4_{draw}"], drawn[f"many_4_{draw}"]
        assert all(patient.startswith("breast") for patient in one)
        assert sum(patient.startswith("breast") for patient in many) <= 1
        assert len(set(one)) == len(set(many)) == 4
    assert not [name for name, them in drawn.items() if any("tested" in each for each in them)]
    assert drawn["patients_6_0"] != drawn["patients_6_1"]
    assert drawn == curve.choices(table, 3)


def test_models_are_trained_once_on_their_patients_alone(curve, table, tmp_path, monkeypatch):
    table.to_csv(tmp_path / "slides.csv", index=False)
    calls = []

    def train(data, seed, changes, leave_out):
        calls.append((seed, changes, set(leave_out)))
        return SimpleNamespace(save=lambda path, half: path.touch())

    script = SimpleNamespace(train=train, SPOTS=1200)
    monkeypatch.setattr(curve, "default_model", lambda: script)
    command = ["train", str(tmp_path), "--draws", "2", "--spots", "6000", "--set", "data.genes=9"]
    curve.main(command)
    drawn = curve.choices(table, 2)
    assert len(calls) == len(drawn) == len(list(curve.FOLDER.iterdir()))
    for (name, patients), (seed, changes, left) in zip(drawn.items(), calls, strict=True):
        assert seed == int(name[-1])
        assert set(table["patient"]) - left == set(patients)
        spots = sum(600 if "breast" in patient else 1200 for patient in patients)
        epochs = min(max(round(6000 / spots), 1), curve.MOST_EPOCHS)
        assert changes == [f"train.max_epochs={epochs}", "data.genes=9"]
    curve.main(command)
    assert len(calls) == len(drawn)


def test_models_are_scored_once(curve, tmp_path, monkeypatch):
    slide = simulate(120, genes=simulate(15).var_names[:80], seed=1)
    (tmp_path / "slides").mkdir()
    slide.write_h5ad(tmp_path / "slides" / "s.h5ad")
    pd.DataFrame({"slide": ["s"], "patient": ["p1"]}).to_csv(tmp_path / "slides.csv", index=False)
    monkeypatch.setattr(curve, "TESTED", {"s": "simulated"})
    curve.FOLDER.mkdir()

    def add(name, patient):
        model = SageFM.new(
            Vocabulary(tuple(slide.var_names), ("",) * 80), Config("context", (8, 8, 8, 4)), seed=1
        )
        model.provenance = {"patients": [patient]}
        model.save(curve.FOLDER / f"{name}.safetensors")

    add("patients_1_0", "p2")
    curve.main(["score", str(tmp_path)])
    first = pd.read_csv(curve.FOLDER / "scores.csv")
    add("patients_3_0", "p3")
    curve.main(["score", str(tmp_path)])
    both = pd.read_csv(curve.FOLDER / "scores.csv")
    assert both["model"].tolist() == ["patients_1_0", "patients_3_0"]
    pd.testing.assert_frame_equal(both[:1], first)
    assert np.isfinite(both[["mse", "share"]]).all(axis=None)
    add("patients_6_0", "p1")
    with pytest.raises(AssertionError, match="patients_6_0"):
        curve.main(["score", str(tmp_path)])


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_the_fits_find_what_is_there(curve, floor):
    n, far = np.array([1.0, 3, 6, 10, 15]), np.array([383.0])
    fitted = curve.fit_floor(n, floor + 0.4 * n**-0.7)(far)
    assert fitted == pytest.approx(floor + 0.4 * far**-0.7, abs=0.01)
    assert curve.fit_log(n, 0.9 - 0.1 * np.log(n))(far) == pytest.approx(0.9 - 0.1 * np.log(far))
    flat = curve.fit_floor(n, np.full(5, 0.7))(far)
    assert flat == pytest.approx([0.7])


def test_the_figure_says_where_the_fits_differ(curve, table, tmp_path, capsys):
    rng = np.random.default_rng(0)
    level = {"patients": lambda n: 0.6 + 0.3 / n, "one": lambda n: 0.9, "many": lambda n: 0.7}
    rows = []
    for name in curve.choices(table, 2):
        which, n, _ = name.split("_")
        rows += [(name, s, level[which](int(n)) + rng.normal(0, 0.01)) for s in curve.TESTED]
    curve.FOLDER.mkdir()
    scores = pd.DataFrame(rows, columns=["model", "section", "share"])
    scores.to_csv(curve.FOLDER / "scores.csv", index=False)
    curve.main(["plot", "--out", str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    told = capsys.readouterr().out
    assert "at the 421 slides of HEST-1k" in told
    assert "; difference +0.20" in told
    assert "4 patients of one kind leave 0.90, of as many kinds 0.70 (black" in told
