"""From slides to a model of the context network."""

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pretrain.commands import Command, as_torchrun

from sagefm import InputError, SageFM
from sagefm.nn import checkpoint, draw_masks
from sagefm.pl import training
from sagefm.pp.sections import sections_of
from sagefm.pp.simulate import simulate
from sagefm.pretrain import Recipe, fit
from sagefm.pretrain.corpus import Corpus, build
from sagefm.pretrain.loop import VALIDATION, Training

SETTINGS = {
    "network.widths": "[16,24,24,12]",
    "data.genes": 120,
    "train.batch_size": 32,
    "train.warmup_steps": 3,
    "train.learning_rate": 5e-3,
    "train.max_epochs": 5,
    "train.save_minutes": 0,
}
SPOTS = 110


@pytest.fixture(scope="module")
def slides():
    """Four patients; two slides lack some of the genes."""
    genes = simulate(15).var_names[:120]
    each = {
        f"s{i}": simulate(SPOTS, genes=genes, seed=i, patient=f"p{i}", slide=f"s{i}")
        for i in range(4)
    }
    return each | {name: each[name][:, 15:].copy() for name in ("s1", "s2")}


def recipe(**changes):
    entries = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return Recipe.load("context", [f"{name}={value}" for name, value in entries.items()])


HELD = {"data__validation": '["p1"]'}  # a slide that lacks genes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "whole.run"


@pytest.fixture(scope="module")
def result(slides, folder):
    return fit(slides, recipe(**HELD), folder=folder, progress=False)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_every_precision_trains(slides, precision):
    entries = {"max_epochs": 1, "precision": precision, "missing_fraction": 0.5}
    chosen = recipe(**HELD, **{f"train__{name}": value for name, value in entries.items()})
    result = fit(slides, chosen, progress=False)
    assert np.isfinite(result.history["validation_loss"]).all()
    assert result.model.network.first.dtype == torch.float32


def test_small_neighborhoods_are_refused_before_an_earlier_run_is_deleted(slides, tmp_path):
    for name in ("s0", "s1"):
        slides[name].write_h5ad(tmp_path / f"{name}.h5ad")
    files = {name: tmp_path / f"{name}.h5ad" for name in ("s0", "s1")}
    build(files, tmp_path / "c", n_neighbors=7)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_text("of an earlier run")
    with pytest.raises(InputError, match="n_neighbors is 7, but the network context needs"):
        fit(Corpus.open(tmp_path / "c"), recipe(), folder=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "best.safetensors").read_text() == "of an earlier run"


def test_training_learns(result, slides):
    history = result.history
    still = recipe(train__max_epochs=1, train__learning_rate=1e-30, **HELD)
    untrained = fit(slides, still, progress=False).history["validation_loss"].iloc[0]
    assert untrained < 0.8 * history["gene_mean"].iloc[0]  # it starts from the slide itself
    assert history["validation_loss"].min() < 0.97 * untrained
    assert history["validation_loss"].min() < 0.995 * history["neighbor_mean"].iloc[0]
    assert np.isfinite(history.to_numpy()).all()
    assert (history["learning_rate"].diff().dropna() < 0).all()


def test_the_loss_is_that_of_the_model_on_the_whole_slide(result, slides):
    """What training computes of a region is what the model predicts of a slide of its size.

    But for the background, which is of the spots outside of a batch, and outside of a fold.
    """
    model, [piece] = result.model, sections_of({"s1": slides["s1"]})
    prepared = model.prepare(slides["s1"])
    hidden = np.zeros(prepared.log1p.shape, dtype=bool)
    for number, rows in enumerate(np.array_split(piece.rows, 3)):
        chance = np.random.default_rng([0, VALIDATION, number])
        hidden[rows] = draw_masks(len(rows), hidden.shape[1], 0.3, chance).dense()
    predicted, truth = model.predict(prepared, hidden=hidden), prepared.log1p.toarray()
    scored = hidden & prepared.measured
    assert scored.sum() < hidden.sum()
    loss = ((predicted - truth)[scored] ** 2).mean()
    assert loss == pytest.approx(result.history["validation_loss"].min(), rel=3e-3)


def test_the_model_is_whole(result, slides, folder):
    """It is saved, loads, embeds, and knows what it was trained on, as it embeds it."""
    best = SageFM.load(folder / "best.safetensors")
    for name, weights in best.network.state_dict().items():
        assert torch.equal(weights, result.model.network.state_dict()[name])
    known, z = result.model.trained_on, best.embed(slides["s0"])
    assert z.shape == (SPOTS, best.width)
    assert known.n_groups == 3
    assert len(known.spots) == 3 * SPOTS
    found = known.reduction(z / np.linalg.norm(z, axis=1, keepdims=True))
    nearest = np.abs(found[:, None] - known.spots[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-2  # the very spots
    metrics = pd.read_csv(folder / "metrics.csv")
    losses = result.history["validation_loss"]
    np.testing.assert_allclose(metrics["validation_loss"], losses, rtol=1e-14)


@pytest.mark.parametrize("at", [2, 14])
def test_resume_gives_the_same_weights(slides, folder, result, tmp_path, monkeypatch, at):
    """From the middle of an epoch; early, perhaps before anything was missing."""
    step, number = Training.train_step, [0]

    def fail(*arguments):
        number[0] += 1
        if number[0] == at:
            raise RuntimeError("stopped")
        return step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "train_step", fail)
        with pytest.raises(RuntimeError, match="stopped"):
            fit(slides, recipe(**HELD), folder=tmp_path / "run", progress=False)
    run = tmp_path / "run"
    assert checkpoint.read(run / "last.safetensors")[1]["progress"]["step"] == at - 1
    again = fit(slides, recipe(**HELD), folder=run, resume=True, progress=False, workers=2)
    ours, theirs = (checkpoint.read(each / "last.safetensors")[0] for each in (run, folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    losses = [each.history["validation_loss"].tolist() for each in (again, result)]
    assert losses[0] == losses[1]


def test_a_corpus_is_as_good_as_its_slides(slides, result, tmp_path):
    """The same batches in validation; in training the regions may come in another order."""
    for name, slide in slides.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    build({name: tmp_path / f"{name}.h5ad" for name in slides}, tmp_path / "corpus")
    (tmp_path / "genes.txt").write_text("\n".join(result.model.vocabulary))
    ours = recipe(data__genes=str(tmp_path / "genes.txt"), train__max_epochs=1, **HELD)
    history = fit(Corpus.open(tmp_path / "corpus"), ours, progress=False).history.iloc[0]
    for name in ("gene_mean", "neighbor_mean"):
        assert history[name] == pytest.approx(result.history[name].iloc[0], rel=1e-5)
    assert history["validation_loss"] == pytest.approx(
        result.history["validation_loss"].iloc[0], rel=0.05
    )


def test_single_numbers_go_faster_than_weights(slides):
    """Six steps of AdamW, of about the learning rate each, and of ten times that."""
    steps = {"train__batch_size": 1000, "train__schedule": "plateau", "train__warmup_steps": 0}
    short = recipe(train__max_epochs=1, train__learning_rate=1e-3, **steps, **HELD)
    model = fit(slides, short, progress=False).model
    born = SageFM.new(model.vocabulary, model.config, seed=0).network.state_dict()
    moved = {
        name: float((weights - born[name]).abs().max())
        for name, weights in model.network.state_dict().items()
        if name in born
    }
    assert 0.001 < moved["norm.bias"] < 0.007
    assert 0.014 < moved["slope"] < 0.070


def test_the_model_knows_the_genes_that_slides_lack(result, slides, tmp_path):
    """Genes that a patient who was held out lacks are predicted from the others."""
    model, lacking = result.model, slides["s1"]  # without its first genes
    assert model.network.absent is not None
    genes = [gene for gene in slides["s0"].var_names[:15] if gene in model.vocabulary]
    prediction = model.predict(lacking, genes=genes)
    assert prediction.std(axis=0).min() > 0 and prediction.min() >= 0
    model.save(tmp_path / "m.safetensors")
    loaded = SageFM.load(tmp_path / "m.safetensors", device="cpu")
    assert np.array_equal(loaded.predict(lacking, genes=genes), prediction)


def test_one_slide_is_trained_on_around_the_piece_that_is_held_out(slides, caplog):
    found = fit({"s0": slides["s0"]}, recipe(train__max_epochs=1), progress=False)
    assert "all slides are of one patient" in caplog.text
    assert np.isfinite(found.history["validation_loss"]).all()


@pytest.fixture(scope="module")
def commands(slides, tmp_path_factory):
    """The command in one process, and in two at once; the sizes share unevenly."""
    short = SETTINGS | {"train.max_epochs": 2}
    sets = [word for entry in short.items() for word in ("--set", "{}={}".format(*entry))]
    folders = []
    for n in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes_{n}")
        for i, (name, slide) in enumerate(slides.items()):
            slide[: SPOTS - 7 * i].write_h5ad(folder / f"{name}.h5ad")
        words = ["pretrain", *(f"{name}.h5ad" for name in slides), "-o", "m.safetensors"]
        words += ["--recipe", "context", *sets]
        environments = as_torchrun(n) if n > 1 else [None]
        folders.append((folder, [Command(folder, words, environment=e) for e in environments]))
    return [(folder, [command.end() for command in started]) for folder, started in folders]


def test_the_command_makes_a_model_that_embeds(commands, slides):
    folder, [(status, told)] = commands[0]
    assert status == 0, told
    assert "SageFM(context, 120 genes" in told
    left = {
        path.name for path in folder.iterdir() if path.suffix != ".h5ad" and path.name[0] != "."
    }
    assert left == {"m.safetensors", "m.csv", "m.png", "m.run"}
    model = SageFM.load(folder / "m.safetensors")
    assert np.isfinite(model.embed(slides["s3"])).all()
    assert model.provenance["recipe"]["train"]["missing_fraction"] == 0.3


def test_two_processes_give_the_weights_of_one(commands):
    (alone, _), (together, ends) = commands
    assert [status for status, _ in ends] == [0, 0], ends
    assert not ends[1][1]  # one tells for both
    assert "Warning" not in ends[0][1]
    ours, theirs = (
        checkpoint.read(each / "m.run" / "last.safetensors")[0] for each in (together, alone)
    )
    for part in theirs:
        torch.testing.assert_close(ours[part], theirs[part], atol=1e-5, rtol=1e-4, msg=part)
    one, other = (pd.read_csv(each / "m.csv") for each in (together, alone))
    for column in ("train_loss", "validation_loss", "gene_mean", "neighbor_mean"):
        np.testing.assert_allclose(one[column], other[column], rtol=0, atol=1e-5)


def test_where_nobody_is_held_out_the_last_epoch_is_kept(slides, tmp_path):
    result = fit(slides, recipe(data__validation="[]", train__max_epochs=3), progress=False)
    made = result.model.provenance
    assert made["best_epoch"] == len(result.history) == 3
    assert made["slides"] == {name: slide.n_obs for name, slide in slides.items()}
    assert made["validation_spots"] == {}
    assert "validation_loss" not in made
    assert "neighbor_mean_loss" not in made
    assert result.history["validation_loss"].isna().all()
    assert result.history["train_loss"].notna().all()
    training(result.history, save=tmp_path / "curve.png", show=False)
    assert (tmp_path / "curve.png").stat().st_size > 5000
