"""The model that comes with the package, and half precision, in which it comes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import typer.main

import sagefm
from sagefm import InputError, SageFM, _fetch
from sagefm.cli import app
from sagefm.nn import checkpoint
from sagefm.stats.reference import ReferenceSpots

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "default_model.py"
"""Patients that the numbers of docs/RESULTS.md are measured on."""


@pytest.fixture(scope="module")
def default():
    return SageFM.load("default", device="cpu")


def test_it_says_what_it_is_and_where_it_comes_from(default):
    assert default.config.network == "context"
    assert len(default.vocabulary) > 10_000
    assert default.trained_on is not None
    made = default.provenance
    patients = set(made["patients"])
    assert len(patients) == default.trained_on.n_groups == 20
    assert not made["validation_spots"]
    assert sum(made["slides"].values()) > 10_000
    assert isinstance(made["recipe"]["train"]["seed"], int)
    assert {"sagefm", "torch", "numpy", "python"} <= set(made)


def test_its_file_is_small_and_holds_exactly_what_is_loaded(default):
    path = _fetch.local_copy("default")
    assert path.stat().st_size <= 25e6
    kept, _ = checkpoint.read(path)
    loaded = default.network.state_dict()
    for name, weights in loaded.items():
        assert kept[name].dtype == torch.float16
        assert weights.dtype == torch.float32
        assert torch.equal(weights.half().view(torch.int16), kept[name].view(torch.int16))
        assert torch.equal(weights, kept[name].float())
    assert {name.split(".")[0] for name in set(kept) - set(loaded)} == {"trained_on"}


WITHOUT_NETWORK = """
import socket
def refuse(*_):
    raise OSError("there is no network")
socket.socket.connect = socket.getaddrinfo = refuse
import sagefm
print(sagefm.SageFM.load("default", device="cpu").fingerprint)
"""


def test_a_fresh_process_loads_it_without_a_network(default, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == default.fingerprint
    assert not any((tmp_path / "cache" / "sagefm").glob("*"))


def test_what_lies_in_the_working_directory_changes_nothing(default, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("default").mkdir()
    assert _fetch.local_copy("default").is_file()
    Path("default").rmdir()
    model.save("default")
    assert SageFM.load("default", device="cpu").fingerprint == default.fingerprint
    for path in ("./default", Path("default"), tmp_path / "default"):
        assert SageFM.load(path, device="cpu").fingerprint == model.fingerprint


@pytest.mark.parametrize("damage", ["missing", "cut short", "another"])
def test_a_damaged_installation_is_one_clear_line(model, run, tmp_path, monkeypatch, damage):
    path = tmp_path / "weights.safetensors"
    if damage == "cut short":
        path.write_bytes(_fetch.local_copy("default").read_bytes()[:-1])
    if damage == "another":
        model.save(path)
    monkeypatch.setattr(_fetch, "_DEFAULT_FILE", path)
    with pytest.raises(InputError, match="is missing or damaged; install sagefm again"):
        SageFM.load("default")
    status, _, err = run("info")
    assert status == 2
    assert err == f"error: {path}: is missing or damaged; install sagefm again\n"


def use(slide, model):
    """Embedding, domains, ten common genes predicted anew, and a perturbation."""
    sagefm.tl.embed(slide, model)
    sagefm.tl.domains(slide, 4)
    known = slide[:, slide.var_names.isin(model.vocabulary.symbols)]
    found = np.asarray((known.X > 0).mean(axis=0)).ravel()
    genes = known.var_names[np.argsort(-found)[:40:4]].tolist()
    confidence = sagefm.tl.impute(slide, model, genes)
    pair = sagefm.tl.perturb(slide, model, [("CXCL12", "CXCR4")], n_matched=20, n_null_spots=64)
    return confidence, pair


@pytest.mark.parametrize("tissue", ["real", "simulated"])
def test_it_works_on_slides_that_it_has_not_seen(default, request, tissue):
    if tissue == "real":
        shared = request.getfixturevalue("shared")
        slide = sagefm.read(shared / "slides" / "her2st_B2.h5ad")
    else:
        slide = request.getfixturevalue("slide").copy()
    confidence, pair = use(slide, default)
    embedding = slide.obsm["X_sagefm"]
    assert embedding.shape == (slide.n_obs, default.width)
    assert np.isfinite(embedding).all()
    assert (embedding.std(axis=0) > 0).all()
    assert slide.obs["sagefm_domain"].nunique() == 4
    assert np.isfinite(slide.obsm["sagefm_imputed"].to_numpy()).all()
    assert confidence["mse_model"].median() < confidence["mse_neighbor_mean"].median()
    assert np.isfinite(pair["effect"][0])
    assert 0 < pair["p"][0] <= 1


def test_the_command_needs_no_model(default, slide, run):
    slide.write_h5ad("s.h5ad")
    status, out, err = run("embed", "s.h5ad", "-o", "o.h5ad", "--device", "cpu")
    assert status == 0, err
    assert f"200 spots × {default.width}" in out
    written = ad.read_h5ad("o.h5ad")
    np.testing.assert_allclose(written.obsm["X_sagefm"], default.embed(slide), atol=1e-5)
    assert written.uns["sagefm"]["embed"]["fingerprint"] == default.fingerprint


def test_every_verb_that_needs_a_model_takes_that_of_the_package():
    optional = {"check", "cross", "evaluate", "map", "rare"}  # no model is an answer there
    defaults = {
        verb: option.default
        for verb, command in typer.main.get_command(app).commands.items()
        for option in command.params
        if option.name == "model"
    }
    assert optional < set(defaults)
    assert set(defaults) >= {"annotate", "embed", "impute", "influence", "perturb", "subtype"}
    for verb, value in defaults.items():
        assert value == (None if verb in optional else "default"), verb


@pytest.mark.parametrize("words", [["info"], ["info", "default"]])
def test_info_tells_about_it(run, default, words):
    status, out, _ = run(*words)
    assert status == 0
    assert out.startswith(str(default))
    assert f"sha256: {_fetch.sha256(_fetch.local_copy('default'))}" in out
    for patient in default.provenance["patients"]:
        assert patient in out
    assert '"seed": ' in out


@pytest.fixture
def learned(model, slide):
    """A model that knows what it was trained on, to be changed."""
    z = model.embed(slide)
    copy = SageFM.new(model.vocabulary, model.config, seed=1)
    copy.trained_on = ReferenceSpots.learn([z[:120], z[120:]], ["a", "b"])
    copy.provenance = {"seed": 4}
    return copy


def test_half_precision_rounds_the_weights_and_nothing_else(learned, slide, tmp_path):
    learned.save(tmp_path / "half.safetensors", half=True)
    learned.save(tmp_path / "full.safetensors")
    half = SageFM.load(tmp_path / "half.safetensors", device="cpu")
    assert half.vocabulary == learned.vocabulary
    assert half.config == learned.config
    assert half.provenance == learned.provenance
    for name, values in learned.trained_on.arrays().items():
        np.testing.assert_array_equal(half.trained_on.arrays()[name], values)
    loaded = half.network.state_dict()
    for name, weights in learned.network.state_dict().items():
        wanted = weights.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(loaded[name].numpy(), wanted)
    z = learned.embed(slide)
    assert 0 < np.abs(half.embed(slide) - z).max() < 2e-3 * np.abs(z).max()
    full = SageFM.load(tmp_path / "full.safetensors", device="cpu")
    assert full.fingerprint == learned.fingerprint != half.fingerprint
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    n_weights = sum(weights.numel() for weights in learned.network.state_dict().values())
    assert sizes[1] - sizes[0] == pytest.approx(2 * n_weights, abs=500)
    # Rounding twice is rounding once.
    half.save(tmp_path / "again.safetensors", half=True)
    again = SageFM.load(tmp_path / "again.safetensors", device="cpu")
    assert again.fingerprint == half.fingerprint


@pytest.mark.parametrize("value", [65504.0, -65519.0, 1e-9, 0.0])
def test_weights_within_the_range_of_half_precision(learned, tmp_path, value):
    with torch.no_grad():
        learned.network.first[3, 2] = value
    learned.save(tmp_path / "m.safetensors", half=True)
    found = SageFM.load(tmp_path / "m.safetensors", device="cpu").network.first[3, 2]
    assert found.item() == float(np.float16(value))


@pytest.mark.parametrize("value", [65520.0, -1e30])
def test_weights_beyond_the_range_of_half_precision_are_refused(learned, tmp_path, value):
    path = tmp_path / "m.safetensors"
    learned.save(path)
    before = path.read_bytes()
    with torch.no_grad():
        learned.network.first[3, 2] = value
    with pytest.raises(InputError, match=r"first has weights beyond 65,504.*half precision"):
        learned.save(path, half=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.fixture
def script():
    """The script that makes the model of the package."""
    spec = importlib.util.spec_from_file_location("default_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path, slide):
    """A folder of slides and their table."""
    (tmp_path / "data" / "slides").mkdir(parents=True)
    rows = [("a", "ann"), ("b", "ben"), ("c", "cyd")]
    for name, _ in rows:
        slide[:30].copy().write_h5ad(tmp_path / "data" / "slides" / f"{name}.h5ad")
    table = pd.DataFrame(rows, columns=["slide", "patient"])
    table.to_csv(tmp_path / "data" / "slides.csv", index=False)
    return tmp_path / "data"


def fitting(monkeypatch, model, held_out):
    """Put a network that is there in place of training; say what was asked for."""
    asked = {}

    def fit(slides, recipe, *, patients, facts):
        asked.update(slides=list(slides), recipe=recipe, patients=patients, facts=facts)
        model.provenance = {"validation_spots": held_out}
        return sagefm.pretrain.fitting.TrainingResult(model, pd.DataFrame({"epoch": [1]}))

    monkeypatch.setattr(sagefm.pretrain, "fit", fit)
    return asked


def test_the_script_trains_on_all_slides(script, data, learned, tmp_path, monkeypatch, capsys):
    asked = fitting(monkeypatch, learned, {})
    out = tmp_path / "m.safetensors"
    script.main([str(data), "-o", str(out), "--seed", "7", "--set", "train.max_epochs=2"])
    assert asked["slides"] == ["a", "b", "c"]
    assert asked["patients"] == {"a": "ann", "b": "ben", "c": "cyd"}
    recipe = asked["recipe"]
    assert recipe.network.name == "context"
    assert recipe.data.validation == []
    assert (recipe.train.seed, recipe.train.max_epochs) == (7, 2)
    loaded = SageFM.load(out, device="cpu")
    assert loaded.provenance["patients"] == ["ann", "ben", "cyd"]
    assert torch.equal(loaded.network.first, learned.network.first.half().float())
    assert f"sha256 {_fetch.sha256(out)}" in capsys.readouterr().out


def test_the_script_leaves_patients_out(script, data, learned, tmp_path, monkeypatch):
    asked = fitting(monkeypatch, learned, {})
    out = tmp_path / "m.safetensors"
    script.main([str(data), "-o", str(out), "--leave-out", "ann", "cyd"])
    assert asked["slides"] == ["b"]
    assert SageFM.load(out, device="cpu").provenance["patients"] == ["ben"]
    with pytest.raises(InputError, match="no patient dan"):
        script.main([str(data), "-o", str(out), "--leave-out", "dan"])


def test_the_script_uses_large_slides_less(script, slide):
    small, large = slide[:30], slide[:60]
    script.SPOTS, before = 40, script.SPOTS
    try:
        assert script.weights({"a": small, "b": large}) == "{b = 0.6667}"
    finally:
        script.SPOTS = before


def test_the_script_keeps_no_model_that_has_not_seen_all(
    script, data, learned, tmp_path, monkeypatch
):
    fitting(monkeypatch, learned, {"c": 30})
    with pytest.raises(RuntimeError, match="held out to validate on: c"):
        script.main([str(data), "-o", str(tmp_path / "m.safetensors")])
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize(
    "table", ["slide,split\na,train\n", "slide,patient\na,\n", "slide,patient\n"]
)
def test_a_table_that_does_not_say_who_is_trained_on_is_refused(script, data, table):
    (data / "slides.csv").write_text(table)
    with pytest.raises(InputError, match=r"slides\.csv: "):
        script.main([str(data), "-o", str(data / "m.safetensors")])
