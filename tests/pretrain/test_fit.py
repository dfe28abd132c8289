"""From slides to a model."""

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sagefm import InputError, SageFM
from sagefm.model import Config
from sagefm.nn import checkpoint, draw_masks
from sagefm.pp.pseudonyms import without_names
from sagefm.pp.sections import sections_of
from sagefm.pp.simulate import simulate
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain import Recipe, fit
from sagefm.pretrain.corpus import Corpus, build
from sagefm.pretrain.loop import VALIDATION, Epochs, Training
from sagefm.pretrain.memory import Memory
from sagefm.pretrain.reference_spots import reference_spots_of
from sagefm.pretrain.schedule import learning_rate
from sagefm.pretrain.source import Selected

FAST = ["network.widths=[32,16,16,16,24]", "data.genes=300", "train.learning_rate=3e-3"]
ONE_STEP = ["train.max_epochs=1", "train.batch_size=10000"]
SPOTS = 120


@pytest.fixture(scope="module")
def slides():
    return {f"s{i}": simulate(SPOTS, seed=i, patient=f"p{i // 2}", slide=f"s{i}") for i in range(6)}


@pytest.fixture(scope="module")
def some(slides):
    """Two patients with a slide each."""
    return {name: slides[name] for name in ("s0", "s2")}


def recipe(*changes):
    return Recipe.load("small", [*FAST, *changes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "first.run"


@pytest.fixture(scope="module")
def result(slides, folder):
    long = recipe("train.max_epochs=25", "train.patience=25")
    return fit(slides, long, folder=folder, progress=False)


def weights(result):
    return result.model.network.state_dict()


def require_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns_and_keeps_the_best_epoch(result, slides):
    history = result.history
    assert history["epoch"].tolist() == list(range(1, 26))
    assert history["validation_loss"].min() < 0.99 * history["validation_loss"].iloc[0]
    assert history["validation_loss"].min() < 0.99 * history["gene_mean"].iloc[0]
    assert history["train_loss"].iloc[-5:].mean() < 0.99 * history["train_loss"].iloc[0]
    assert result.model.provenance["best_epoch"] == history["validation_loss"].argmin() + 1
    assert result.model.predict(slides["s0"]).shape == (SPOTS, 300)


def test_the_history_says_how_it_went(result):
    history = result.history
    assert list(history) == [
        "epoch", "train_loss", "validation_loss", "learning_rate", "spots_per_second", "seconds",
        "gene_mean", "neighbor_mean",
    ]  # fmt: skip
    assert np.isfinite(history.to_numpy()).all()
    assert (history["spots_per_second"] > 0).all()
    assert (history["seconds"].diff().dropna() > 0).all()
    assert (history["learning_rate"] == 3e-3).all()


def test_the_model_says_where_it_comes_from(result, slides):
    provenance = result.model.provenance
    assert provenance["slides"] == dict.fromkeys(slides, SPOTS)
    assert len(provenance["validation_spots"]) == 2  # both slides of one patient
    held = {slides[name].obs["patient"].iloc[0] for name in provenance["validation_spots"]}
    assert len(held) == 1
    assert provenance["recipe"]["train"]["seed"] == 0
    assert {"sagefm", "torch", "numpy", "python"} <= provenance.keys()


def validation_the_slow_way(result, slides):
    """Truth, what is hidden, network and neighbor mean of the validation spots, as dense arrays."""
    model, rows = result.model, []
    for piece in sections_of(slides):
        if piece.name in model.provenance["validation_spots"]:
            rows += [(piece.slide, row) for row in piece.rows]
    genes, parts = len(model.vocabulary), []
    for number, start in enumerate(range(0, len(rows), 64)):
        centers = rows[start : start + 64]
        chance = np.random.default_rng([0, VALIDATION, number])
        masks = draw_masks(len(centers), genes, 0.3, chance).dense().numpy()
        for (slide, row), hidden in zip(centers, masks, strict=True):
            parts.append((slide, row, hidden))
    truth, network, around = (np.empty((len(parts), genes)) for _ in range(3))
    for slide in {id(slide): slide for slide, *_ in parts}.values():
        own = [i for i, part in enumerate(parts) if part[0] is slide]
        places = [parts[i][1] for i in own]
        prepared = model.prepare(slide)
        x = prepared.log1p.toarray()
        hidden = np.zeros(x.shape, dtype=bool)
        hidden[places] = [parts[i][2] for i in own]
        truth[own] = x[places]
        network[own] = model.predict(prepared, hidden=hidden)[places]
        around[own] = x[prepared.neighbors[places, 1:]].mean(axis=1)
    return truth, np.array([hidden for *_, hidden in parts]), network, around


def training_mean(result, slides):
    model, rows = result.model, []
    for name, slide in slides.items():
        if name not in model.provenance["validation_spots"]:
            rows.append(model.prepare(slide).log1p.toarray())
    return np.concatenate(rows).mean(axis=0)


def test_the_losses_are_those_computed_the_slow_way(result, slides):
    """Of the returned weights, which are those of the best epoch, and of both references."""
    truth, hidden, network, around = validation_the_slow_way(result, slides)
    history, mean = result.history, training_mean(result, slides)
    for guess, told in [
        (network, history["validation_loss"].min()),
        (around, history["neighbor_mean"].iloc[0]),
        (np.broadcast_to(mean, truth.shape), history["gene_mean"].iloc[0]),
    ]:
        assert ((guess - truth)[hidden] ** 2).mean() == pytest.approx(told, rel=1e-5)
    assert history["neighbor_mean"].nunique() == history["gene_mean"].nunique() == 1
    told = result.model.provenance
    assert told["neighbor_mean_loss"] == history["neighbor_mean"].iloc[0]
    assert told["validation_loss"] == history["validation_loss"].min()


def test_the_folder_of_a_run_holds_its_best_model_and_its_logs(result, folder):
    best = SageFM.load(folder / "best.safetensors")
    require_equal(best.network.state_dict(), weights(result))
    at_the_end = "trained_slides", result.model.provenance["trained_slides"]
    named = best.provenance | dict([at_the_end])
    assert without_names(named) == without_names(result.model.provenance)
    metrics = pd.read_csv(folder / "metrics.csv")
    pd.testing.assert_frame_equal(metrics, result.history[list(metrics)], rtol=1e-14)
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    logged = [event.value for event in board.Scalars("validation_loss")]
    np.testing.assert_allclose(logged, metrics["validation_loss"], rtol=1e-6)
    assert {"train_loss", "learning_rate", "spots_per_second"} <= set(board.Tags()["scalars"])
    last, header = checkpoint.read(folder / "last.safetensors")
    assert header["progress"]["epoch"] == 25
    best_is_last = result.model.provenance["best_epoch"] == 25
    assert torch.equal(last["network.first"], best.network.first) == best_is_last


def test_the_same_seed_gives_the_same_weights(some):
    """Whatever torch's own chance is, and however many threads gather."""
    torch.manual_seed(1)
    one = fit(some, recipe("train.max_epochs=2"), progress=False)
    torch.manual_seed(2)
    two = fit(some, recipe("train.max_epochs=2"), progress=False, workers=3)
    other = fit(some, recipe("train.max_epochs=2", "train.seed=1"), progress=False)
    timeless = [name for name in one.history if name not in ("seconds", "spots_per_second")]
    assert one.history[timeless].equals(two.history[timeless])
    require_equal(weights(one), weights(two))
    assert not torch.equal(weights(one)["first"], weights(other)["first"])


def test_a_source_of_slides_is_as_good_as_the_slides(some, tmp_path):
    genes = some["s0"].var_names[100:700]
    (tmp_path / "genes.txt").write_text("\n".join(genes))
    short = recipe("train.max_epochs=1", f"data.genes={tmp_path / 'genes.txt'}")
    source = Memory(sections_of(some), Vocabulary(tuple(genes)), 15)
    ours, theirs = (fit(each, short, progress=False) for each in (some, source))
    require_equal(weights(ours), weights(theirs))
    selected = recipe("train.max_epochs=1", "data.genes=50")
    assert len(fit(source, selected, progress=False).model.vocabulary) == 50


def test_early_stopping(some):
    stuck = recipe("train.max_epochs=50", "train.patience=2", "train.learning_rate=1e-30")
    history = fit(some, stuck, progress=False).history
    assert len(history) == 3  # the first, and two without improvement


def gradient_of_the_first_step(slides, folder, *changes):
    """Length of the gradient, from what Adam remembers: a tenth of it."""
    fit(slides, recipe(*ONE_STEP, *changes), folder=folder, progress=False)
    memory, header = checkpoint.read(folder / "last.safetensors")
    assert header["progress"]["step"] == 1
    moments = [m.flatten() for name, m in memory.items() if name.startswith("optimizer.exp_avg.")]
    return 10 * float(torch.cat(moments).norm())


def test_long_gradients_are_clipped(some, tmp_path):
    whole = gradient_of_the_first_step(some, tmp_path)
    assert whole > 0.01
    clipped = gradient_of_the_first_step(some, tmp_path, f"train.clip_norm={whole / 2}")
    assert clipped == pytest.approx(whole / 2, rel=1e-4)
    longest = gradient_of_the_first_step(some, tmp_path, f"train.clip_norm={whole * 2}")
    assert longest == pytest.approx(whole, rel=1e-4)


def test_bfloat16_gives_nearly_the_same(some):
    exact, rough = (
        fit(some, recipe("train.max_epochs=3", f"train.precision={name}"), progress=False)
        for name in ("float32", "bfloat16")
    )
    a, b = exact.history["validation_loss"], rough.history["validation_loss"]
    assert not a.equals(b)
    np.testing.assert_allclose(a, b, rtol=0.02)
    assert weights(rough)["first"].dtype == torch.float32


def test_the_rate_follows_the_recipe(some):
    waves = recipe("train.schedule=cosine", "train.warmup_steps=3", "train.max_epochs=4")
    history = fit(some, waves, progress=False).history
    expected = [learning_rate(waves.train, 2 * epoch + 1, 8, []) for epoch in range(4)]
    assert history["learning_rate"].tolist() == pytest.approx(expected)
    assert history["learning_rate"].argmax() == 1  # risen after three steps, then falling


def test_a_slide_with_weight_two_is_seen_twice(some, tmp_path):
    held = 'data.validation=["p1"]'
    for weight, steps in ((1.0, 2), (2.0, 4)):
        changes = ["train.max_epochs=1", held, f"data.weights={{s0={weight}}}"]
        fit(some, recipe(*changes), folder=tmp_path, progress=False)
        assert checkpoint.read(tmp_path / "last.safetensors")[1]["progress"]["step"] == steps


def test_patients_left_out_are_not_touched(slides):
    short = recipe("train.max_epochs=1", 'data.leave_out=["p2"]')
    result = fit(slides, short, progress=False)
    assert set(result.model.provenance["slides"]) == {"s0", "s1", "s2", "s3"}


def test_one_slide_holds_out_a_piece_and_says_so(slides, caplog):
    with caplog.at_level("WARNING", logger="sagefm"):
        result = fit({"s0": slides["s0"]}, recipe("train.max_epochs=1"), progress=False)
    assert "all slides are of one patient" in caplog.text
    assert result.model.provenance["validation_spots"] == {"s0": 12}


def test_every_epoch_is_told(some, caplog):
    with caplog.at_level("INFO", logger="sagefm"):
        fit(some, recipe("train.max_epochs=2"), progress=False)
    told = [line for line in caplog.messages if line.startswith("epoch ")]
    assert len(told) == 2
    assert "validation loss 0." in told[0]
    assert "spots/s" in told[0]
    assert "min left" in told[0]


def test_the_progress_bar_has_spots_per_second(some, capsys):
    fit(some, recipe("train.max_epochs=2"), progress=True)
    told = capsys.readouterr().err
    assert "epoch 2/2" in told
    assert "spots/s: " in told


def test_a_slide_that_cannot_be_used_is_named(slides):
    bad = {"good": slides["s0"], "tiny": slides["s2"][:10].copy()}
    with pytest.raises(InputError, match=r"tiny: .*10 spots"):
        fit(bad, recipe(), progress=False)
    with pytest.raises(InputError, match="no slides"):
        fit({}, recipe(), progress=False)


def test_training_that_diverges_is_an_error_and_no_model(some):
    wild = recipe("train.max_epochs=2", "train.learning_rate=1e18")
    with pytest.raises(InputError, match="diverged"):
        fit(some, wild, progress=False)


def test_ctrl_c_is_given_back_when_training_fails(some, monkeypatch):
    def fail(*_):
        raise RuntimeError("the reason")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("sagefm.pretrain.loop.Training.train_step", fail)
    with pytest.raises(RuntimeError, match="the reason"):
        fit(some, recipe(), progress=False)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("owner", "name"), [(Training, "run_epochs"), (Epochs, "train")])
def test_ctrl_c_before_the_first_step_is_no_divergence(some, monkeypatch, owner, name):
    """It ends as it does while slides are read, or after a step: nothing is said of the loss."""
    go_on = getattr(owner, name)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return go_on(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    ended = False
    try:
        ended = len(fit(some, recipe("train.max_epochs=2"), progress=False).history) == 1
    except KeyboardInterrupt:
        ended = True
    assert ended


def test_slides_without_a_patient_are_told(slides, caplog):
    bare = slides["s2"].copy()
    del bare.obs["patient"]
    fit({"s0": slides["s0"], "bare": bare}, recipe("train.max_epochs=1"), progress=False)
    assert "1 of 2 slides have no obs column 'patient'" in caplog.text


def test_the_model_knows_what_it_was_trained_on(result, slides):
    """Spots of the training patients alone, as the final model embeds them, by patient."""
    model, known = result.model, result.model.trained_on
    held = {slides[name].obs["patient"].iloc[0] for name in model.provenance["validation_spots"]}
    trained = [name for name in slides if slides[name].obs["patient"].iloc[0] not in held]
    patients = [slides[name].obs["patient"].iloc[0] for name in trained]
    assert len(known.spots) == SPOTS * len(trained)
    assert known.n_groups == len(set(patients)) == 2
    z = np.concatenate([model.embed(slides[name]) for name in trained])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = known.reduction(z)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(known.spots, axis=0), atol=2e-3)
    unseen = model.embed(slides[next(iter(model.provenance["validation_spots"]))])
    assert known.distance(z * 3).mean() < known.distance(unseen).mean()


def test_without_several_patients_slides_are_the_groups(slides):
    two = {"s0": slides["s0"], "s1": slides["s1"]}
    known = fit(two, recipe("train.max_epochs=1"), progress=False).model.trained_on
    assert known.n_groups == 2
    assert len(known.spots) == 2 * 108  # a tenth of each is held out


def test_what_is_known_of_a_corpus_is_what_is_known_of_its_slides(slides, tmp_path, monkeypatch):
    monkeypatch.setattr("sagefm.stats.reference._MAX_SPOTS", 60)
    some = {name: slides[name] for name in ("s0", "s2", "s4")}
    for name, slide in some.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    build({name: tmp_path / f"{name}.h5ad" for name in some}, tmp_path / "corpus")
    vocabulary = Vocabulary(tuple(slides["s0"].var_names[:300]))
    model = SageFM.new(vocabulary, Config(widths=(16, 8, 8, 8, 12)), seed=1)
    corpus = Selected.of(Corpus.open(tmp_path / "corpus"), vocabulary)
    training = {"s0": np.arange(SPOTS), "s2": np.arange(20, SPOTS), "s4": np.arange(7)}
    sources = corpus, Memory(sections_of(some), vocabulary, 15)
    (stored, rows), (held, own) = (
        reference_spots_of(model, source, training) for source in sources
    )
    for name in training:
        np.testing.assert_allclose(rows[name].profile, own[name].profile, atol=0.05)
        assert len(rows[name].profile) == stored.spots.shape[1]
    assert len(stored.spots) == 60
    assert np.bincount(stored.groups).tolist() == [27, 26, 7]  # all of the few of the third
    assert np.array_equal(stored.groups, held.groups)
    z = model.embed(slides["s1"])
    np.testing.assert_allclose(stored.distance(z), held.distance(z), rtol=1e-2)
