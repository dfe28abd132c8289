import logging
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sagefm import InputError
from sagefm.evaluate.baselines import embeddings
from sagefm.evaluate.baselines.embeddings import competitors
from sagefm.evaluate.baselines.mofa import mofa_factors
from sagefm.evaluate.baselines.pca import joint_pca, pca
from sagefm.model import SageFM
from sagefm.pp import simulate

SMOOTH = {
    "PCA": {},
    "PCA of 7-spot means": {"smooth": 7},
    "PCA of 7-spot means, all genes": {"smooth": 7, "n_genes": None},
    "PCA of 15-spot means, all genes": {"smooth": 15, "n_genes": None},
    "NichePCA": {"smooth": 25, "n_genes": None},
    "joint PCA": {"smooth": 15, "n_genes": None, "center": True},
}
BASELINES = ["raw HVG", *list(SMOOTH)[:-1], "CellCharter aggregation", "joint PCA"]


@pytest.fixture(autouse=True)
def no_harmony(monkeypatch):
    """So that the methods are the same wherever the tests run."""
    found = embeddings.find_spec
    monkeypatch.setattr(
        embeddings, "find_spec", lambda name: None if name == "harmonypy" else found(name)
    )


@pytest.fixture(scope="module")
def originals():
    return [simulate(90, seed=1), simulate(70, seed=2)]


@pytest.fixture
def slides(originals):
    return [slide.copy() for slide in originals]


def called(name, field):
    return next(one for one in field if one.name == name)


def test_who_takes_part_and_in_which_order(model):
    field = competitors({"mine": model, "yours": model}, obsm=["X_a"], mofa=False)
    assert [(one.name, one.kind) for one in field] == [
        *((name, "baseline") for name in BASELINES),
        ("obsm X_a", "model"),
        ("mine", "model"),
        ("yours", "model"),
        ("random weights", "control"),
        ("random numbers", "control"),
    ]


def test_without_a_model_there_are_no_random_weights():
    assert [one.name for one in competitors({}, mofa=False)] == [*BASELINES, "random numbers"]


def test_each_gives_spots_by_width_in_one_space_and_the_same_every_time(slides, model):
    for one in competitors({"mine": model}, mofa=False):
        found, again = (one.of(slides, [True, True]) for _ in range(2))
        assert [len(z) for z in found] == [90, 70]
        assert found[0].shape[1] == found[1].shape[1]
        for z, same in zip(found, again, strict=True):
            assert z.dtype == np.float32
            assert np.isfinite(z).all()
            np.testing.assert_array_equal(z, same)
            assert z.std() > 0


def test_baselines_are_what_they_are_called(slides):
    field = competitors({}, mofa=False, seed=4)
    for name, how in SMOOTH.items():
        z = called(name, field).of(slides, [True, False])
        for found, wanted in zip(z, joint_pca(slides, [True, False], **how, seed=4), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert called(name, field).joint == ("center" in how)
        if "center" not in how:
            np.testing.assert_array_equal(z[0], pca(slides[0], **how, seed=4))
    raw = called("raw HVG", field).of(slides, [True, True])[0]
    counts = slides[0].X.toarray()
    depth = np.median(np.concatenate([s.X.sum(axis=1).A1 for s in slides]))
    seen = sum(s.X.getnnz(axis=0) for s in slides) > 0  # fewer than 3,000: all of them stay
    wanted = np.log1p(counts * depth / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(raw, wanted[:, seen], rtol=1e-4)


def test_models_and_controls(slides, model):
    field = competitors({"mine": model}, mofa=False)
    known = called("mine", field).of(slides, [True, False])
    np.testing.assert_array_equal(known[1], model.embed(slides[1]))
    untrained = called("random weights", field)
    assert "mine" in untrained.note
    (z,) = untrained.of(slides[:1], [True])
    assert z.shape == known[0].shape
    assert not np.allclose(z, known[0], atol=1e-3)
    drawn = [one.of(slides[:1], [True])[0] for one in untrained.drawn()]
    assert len(drawn) == 3
    np.testing.assert_array_equal(drawn[0], z)
    assert not np.allclose(drawn[1], drawn[2])
    assert called("mine", field).untrained == "random weights"
    other = called("random weights", competitors({"mine": model}, mofa=False, seed=1))
    assert not np.array_equal(other.of(slides[:1], [True])[0], z)
    numbers = called("random numbers", field).of(slides, [True, True])
    assert numbers[0].shape == (90, 50)
    assert abs(numbers[0].mean()) < 0.1
    assert numbers[0].std() == pytest.approx(1, abs=0.1)
    assert not np.array_equal(numbers[0][:70], numbers[1])


def test_every_network_has_its_own_random_weights(model, context_model):
    """Models that differ in nothing but weights share them."""
    again = SageFM.new(model.vocabulary, model.config, seed=9)
    field = competitors({"a": model, "b": again, "c": context_model}, mofa=False)
    controls = {one.name: one.untrained for one in field if one.kind == "model"}
    assert controls == {
        "a": "random weights (a)", "b": "random weights (a)", "c": "random weights (c)",
    }  # fmt: skip
    assert {"random weights (a)", "random weights (c)"} < {one.name for one in field}


def test_harmony_takes_part_if_it_is_installed(slides, monkeypatch):
    """It is given the components of all slides together, and a batch per slide."""
    calls = []

    def run_harmony(z, batches, key, random_state):
        calls.append((z, batches[key].tolist(), random_state))
        return SimpleNamespace(Z_corr=2 * z)

    monkeypatch.setitem(sys.modules, "harmonypy", SimpleNamespace(run_harmony=run_harmony))
    monkeypatch.setattr(embeddings, "find_spec", lambda name: object())
    one = called("Harmony", competitors({}, mofa=False, seed=3))
    assert one.joint
    assert one.transductive
    found = one.of(slides, [True, False])
    wanted = joint_pca(slides, [True, True], smooth=15, n_genes=None, seed=3)
    for z, plain in zip(found, wanted, strict=True):
        np.testing.assert_allclose(z, 2 * plain, rtol=1e-6)
    [(_, batches, seed)] = calls
    assert batches == ["0"] * 90 + ["1"] * 70
    assert seed == 3


def test_embeddings_in_the_slides(slides):
    wanted = [np.arange(3.0 * len(slide)).reshape(-1, 3) for slide in slides]
    slides[0].obsm["X_a"] = pd.DataFrame(wanted[0], index=slides[0].obs_names)
    slides[1].obsm["X_a"] = sparse.csr_matrix(wanted[1])
    one = called("obsm X_a", competitors({}, obsm=["X_a"], mofa=False))
    for found, expected in zip(one.of(slides, [True, True]), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (None, r"obsm\['X_a'\]: is missing in a slide, which has spatial; add it"),
        (np.zeros((70, 4)), r"obsm\['X_a'\]: is 3, 4 wide in different slides"),
        (np.full((70, 3), np.nan), r"obsm\['X_a'\]: is not a table of finite numbers"),
    ],
)
def test_embeddings_in_the_slides_that_cannot_be_used(slides, held, message):
    slides[0].obsm["X_a"] = np.ones((90, 3))
    if held is not None:
        slides[1].obsm["X_a"] = held
    one = called("obsm X_a", competitors({}, obsm=["X_a"], mofa=False))
    with pytest.raises(InputError, match=message):
        one.of(slides, [True, True])


def test_a_name_that_is_taken_is_refused(model):
    with pytest.raises(InputError, match="models: two methods would have the name PCA; rename"):
        competitors({"PCA": model}, mofa=False)


def test_mofa_takes_part_and_learns_from_all(slides, capfd):
    pytest.importorskip("mofapy2", reason="no mofapy2: pip install sagefm[evaluate]")
    one = called("MOFA", competitors({}))
    assert one.kind == "baseline"
    assert "no projection" in one.note
    out = sys.stdout
    found, again = (one.of(slides, [True, False]) for _ in range(2))
    assert sys.stdout is out
    assert capfd.readouterr() == ("", "")
    assert [len(z) for z in found] == [90, 70]
    assert found[0].shape[1] <= 20
    for z, same in zip(found, again, strict=True):
        np.testing.assert_array_equal(z, same)
    stacked = np.concatenate(found)
    np.testing.assert_allclose(stacked.mean(axis=0), 0, atol=0.2)  # centered together


def test_mofa_finds_two_programs_and_no_more():
    pytest.importorskip("mofapy2", reason="no mofapy2: pip install sagefm[evaluate]")
    rng = np.random.default_rng(0)
    programs = rng.normal(size=(120, 2))
    x = programs @ rng.normal(size=(2, 80)) + 0.1 * rng.normal(size=(120, 80))
    z = mofa_factors(x, seed=0)
    left = programs - programs.mean(axis=0)
    left -= z @ np.linalg.lstsq(z, left, rcond=None)[0]
    assert left.std() < 0.1


def test_without_mofapy2_it_is_left_out_and_told(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mofapy2", None)
    with caplog.at_level(logging.WARNING, "sagefm"):
        names = [one.name for one in competitors({})]
    assert names == [*BASELINES, "random numbers"]
    assert "pip install sagefm[evaluate]" in caplog.text
