"""A run that ends early, however it ends, and goes on: the same weights as without the end."""

import os
import signal
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pretrain.commands import Command, line_of

from sagefm import InputError, SageFM
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate
from sagefm.pretrain import Recipe, fit

SETTINGS = {
    "network.widths": "[16,8,8,8,12]",
    "data.genes": 60,
    "data.patch": 4,
    "train.batch_size": 16,
    "train.learning_rate": 3e-3,
    "train.weight_decay": 1e-4,
    "train.clip_norm": 0.5,
    "train.warmup_steps": 7,
    "train.max_epochs": 4,
    "train.save_minutes": 0,
}
CHANGES = [f"{entry}={value}" for entry, value in SETTINGS.items()]
STEPS = 13  # of an epoch: 200 spots
NAMES = [f"s{i}" for i in range(4)]
COMMAND = [
    "pretrain",
    *(f"{name}.h5ad" for name in NAMES),
    "-o",
    "m.safetensors",
    "--recipe",
    "small",
]
COMMAND += [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(scope="module")
def slides():
    genes = simulate(15).var_names[:100]
    return {
        name: simulate(100, genes=genes, seed=i, patient=f"p{i // 2}", slide=name)
        for i, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def home(slides, tmp_path_factory):
    """The slides, and the run that nobody ends."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, slide in slides.items():
        slide.write_h5ad(folder / f"{name}.h5ad")
    status, told = Command(folder, COMMAND).end()
    assert status == 0, told
    return folder


@pytest.fixture
def place(home, tmp_path):
    """The slides alone."""
    for name in NAMES:
        (tmp_path / f"{name}.h5ad").symlink_to(home / f"{name}.h5ad")
    return tmp_path


def state_of(folder):
    return checkpoint.read(folder / "m.run" / "last.safetensors")


def step_of(folder):
    """How far a run is; 0 where it has saved nothing yet."""
    if not (folder / "m.run" / "last.safetensors").exists():
        return 0
    return state_of(folder)[1]["progress"]["step"]


def timeless(history):
    return history.drop(columns=["seconds", "spots_per_second"])


def require_the_same(folder, home):
    """Weights, optimizer and place in the last state; the model; the history."""
    (ours, header), (theirs, expected) = state_of(folder), state_of(home)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert header["facts"] == expected["facts"]
    timely = ("seconds", "rows", "error", "entries")
    for entry in header["progress"].keys() - {*timely}:
        assert header["progress"][entry] == expected["progress"][entry]
    models = [SageFM.load(each / "m.safetensors") for each in (folder, home)]
    states = [model.network.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert models[0].provenance == models[1].provenance
    for table in ("m.csv", "m.run/metrics.csv"):
        tables = [
            timeless(pd.read_csv(each / table, float_precision="round_trip"))
            for each in (folder, home)
        ]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    seconds = pd.read_csv(folder / "m.csv")["seconds"]
    assert (seconds.diff().dropna() > 0).all()


def test_the_run_to_compare_with_is_worth_it(home):
    history = pd.read_csv(home / "m.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert step_of(home) == 4 * STEPS
    assert history["validation_loss"].nunique() == 4


DIE = "import os, signal; die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
LATER = """
import threading
from sagefm.pretrain.module import Pretraining
step, number = Pretraining.training_step, [0]
def training_step(self, batch, batch_idx):
    number[0] += 1
    if number[0] == {number}:
        threading.Timer({seconds}, die).start()
    return step(self, batch, batch_idx)
Pretraining.training_step = training_step
"""


def test_killed_at_random_moments(place, home):
    """SIGKILL a few milliseconds after some step, again and again, until the run is through."""
    rng = np.random.default_rng(11)
    kills, status = 0, None
    while status != 0:
        later = LATER.format(number=rng.integers(1, 15), seconds=rng.uniform(0, 0.01))
        flags = ["--resume"] if step_of(place) else ["--overwrite"]
        status, told = Command(place, [*COMMAND, *flags], before=DIE + later).end()
        assert status in (0, -signal.SIGKILL), told
        kills += status != 0
    assert kills >= 3
    require_the_same(place, home)


MOMENTS = {
    "while the state of the first epoch is being written": """
import sagefm.nn.checkpoint as c
save, calls = c.save_file, [0]
def save_file(tensors, path, **more):
    save(tensors, path, **more)
    calls[0] += 1
    if calls[0] == 6:
        os.truncate(path, os.path.getsize(path) // 2)
        die()
c.save_file = save_file
""",
    "between the best model and the state of its epoch": """
from sagefm.pretrain.loop import Keeper
save = Keeper._save
def _save(self, *arguments):
    if self.progress.epoch == 1 and not self.progress.batch:
        assert self.run.best.exists()
        die()
    save(self, *arguments)
Keeper._save = _save
""",
    "between the state and the table of an epoch": """
import pandas
from sagefm.pretrain.run import Run
to_csv = pandas.DataFrame.to_csv
pandas.DataFrame.to_csv = lambda self, *a, **k: die() if len(self) == 2 else to_csv(self, *a, **k)
""",
    "in the middle of a backward pass": """
import torch
from sagefm.pretrain.module import Pretraining
step = Pretraining.training_step
def training_step(self, batch, batch_idx):
    loss = step(self, batch, batch_idx)
    if batch_idx == 5:
        loss.register_hook(lambda _: die())
    return loss
Pretraining.training_step = training_step
""",
    "in validation": """
from sagefm.pretrain.module import Pretraining
step = Pretraining.validation_step
def validation_step(self, batch, batch_idx):
    step(self, batch, batch_idx)
    if batch_idx == 3:
        die()
Pretraining.validation_step = validation_step
""",
    "when all is trained, before the model is written": """
import sagefm.cli.training
sagefm.cli.training._write = lambda *_: die()
""",
    "while the model is being written": """
import sagefm.nn.checkpoint as c
save = c.save_file
def save_file(tensors, path, **more):
    if ".m." in str(path):
        die()
    save(tensors, path, **more)
c.save_file = save_file
""",
}  # fmt: skip


def test_killed_at_the_worst_moments(place, home):
    for number, (moment, code) in enumerate(MOMENTS.items()):
        command = Command(place, [*COMMAND, *["--resume"] * (number > 0)], before=DIE + code)
        status, told = command.end()
        assert status == -signal.SIGKILL, f"{moment}: {told}"
        assert not (place / "m.safetensors").exists()
    status, told = Command(place, [*COMMAND, "--resume"]).end()
    assert status == 0, told
    require_the_same(place, home)


def test_ctrl_c_from_a_terminal(place, home):
    command = Command(place, COMMAND)
    assert command.until(lambda: step_of(place) >= STEPS + 4)
    command.send(signal.SIGINT)
    status, told = command.end()
    assert status == 0
    assert "stopping: the best epoch so far is kept" in told
    assert len(pd.read_csv(place / "m.csv")) < 4
    assert SageFM.load(place / "m.safetensors").provenance["best_epoch"] == 1
    status, told = Command(place, [*COMMAND, "--resume"]).end()
    assert status == 0, told
    require_the_same(place, home)


# From here on in this process, where a run takes a moment, and is saved when it ends.


def recipe(*changes):
    return Recipe.load("small", [*CHANGES, "train.save_minutes=60", *changes])


@pytest.fixture(scope="module")
def whole(slides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = fit(slides, recipe(), folder=folder, progress=False)
    return result, checkpoint.read(folder / "last.safetensors")[0]


def require_whole(result, folder, whole):
    expected, memory = whole
    pd.testing.assert_frame_equal(timeless(result.history), timeless(expected.history))
    last, _ = checkpoint.read(folder / "last.safetensors")
    assert all(torch.equal(last[name], memory[name]) for name in memory)
    ours, theirs = (each.model.network.state_dict() for each in (result, expected))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert result.model.provenance == expected.model.provenance


def at_step(number, act, stage="training_step"):
    """Patch the module to do something at the n-th step of a stage."""
    from sagefm.pretrain.module import Pretraining

    numbers, step = count(1), getattr(Pretraining, stage)

    def patched(self, batch, batch_idx):
        if next(numbers) == number:
            act()
        return step(self, batch, batch_idx)

    return f"sagefm.pretrain.module.Pretraining.{stage}", patched


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("stage", "number", "epochs"),
    [
        ("training_step", 1, [1]),  # an epoch that is cut short counts where there is no other
        ("training_step", STEPS, [1]),
        ("validation_step", 3, [1]),
        ("training_step", STEPS + 1, [1]),
        ("training_step", 2 * STEPS + 6, [1, 2]),
        ("training_step", 4 * STEPS, [1, 2, 3, 4]),
    ],
)
def test_ctrl_c_at_any_step(slides, whole, tmp_path, monkeypatch, stage, number, epochs):
    with monkeypatch.context() as patched:
        patched.setattr(*at_step(number, interrupt, stage))
        short = fit(slides, recipe(), folder=tmp_path, progress=False)
    assert short.history["epoch"].tolist() == epochs
    assert short.model.provenance["best_epoch"] in epochs
    if len(epochs) > 1:
        expected = timeless(whole[0].history.iloc[: len(epochs)])
        pd.testing.assert_frame_equal(timeless(short.history), expected)
    result = fit(slides, recipe(), folder=tmp_path, resume=True, progress=False, workers=2)
    require_whole(result, tmp_path, whole)


def test_ctrl_c_again_and_again(slides, whole, tmp_path, monkeypatch):
    for number in range(5):
        with monkeypatch.context() as patched:
            patched.setattr(*at_step(5, interrupt))
            fit(slides, recipe(), folder=tmp_path, resume=number > 0, progress=False)
    result = fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    require_whole(result, tmp_path, whole)


def test_a_slide_that_vanishes_ends_the_run_and_loses_nothing(slides, whole, tmp_path, monkeypatch):
    """As where a disk is unplugged: one error, and the run goes on from its last state."""
    from sagefm.pretrain.memory import Memory

    def vanish():
        def read(*_):
            raise InputError("s2: is gone")

        patched.setattr(Memory, "read", read)

    with monkeypatch.context() as patched:
        patched.setattr(*at_step(2 * STEPS + 3, vanish))
        with pytest.raises(InputError, match="s2: is gone"):
            fit(slides, recipe(), folder=tmp_path, progress=False)
    result = fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    require_whole(result, tmp_path, whole)


def test_a_finished_run_has_nothing_left_to_do(slides, whole, tmp_path, monkeypatch):
    fit(slides, recipe(), folder=tmp_path, progress=False)
    monkeypatch.setattr(*at_step(1, lambda: pytest.fail("trains on")))
    result = fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    require_whole(result, tmp_path, whole)


def test_a_run_can_be_given_more_epochs(slides, whole, tmp_path):
    fit(slides, recipe("train.max_epochs=2"), folder=tmp_path, progress=False)
    result = fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    require_whole(result, tmp_path, whole)


def test_a_run_that_has_stalled_goes_on_with_more_patience(slides, whole, tmp_path):
    impatient = ["train.patience=1", "train.learning_rate=1e-30"]
    short = fit(slides, recipe(*impatient), folder=tmp_path, progress=False)
    again = fit(slides, recipe(*impatient), folder=tmp_path, resume=True, progress=False)
    assert len(short.history) == len(again.history) == 2
    patient = ["train.patience=9", "train.learning_rate=1e-30"]
    result = fit(slides, recipe(*patient), folder=tmp_path, resume=True, progress=False)
    expected = fit(slides, recipe(*patient), progress=False)
    assert timeless(result.history).equals(timeless(expected.history))


def test_a_wave_goes_on_where_it_was(slides, tmp_path, monkeypatch):
    wave = recipe("train.schedule=cosine")
    expected = fit(slides, wave, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(*at_step(STEPS + 6, interrupt))
        fit(slides, wave, folder=tmp_path, progress=False)
    with pytest.raises(InputError, match=r"recipe\.train\.max_epochs = 4, and now it is 5"):
        fit(slides, recipe("train.schedule=cosine", "train.max_epochs=5"), folder=tmp_path,
            resume=True, progress=False)  # fmt: skip
    result = fit(slides, wave, folder=tmp_path, resume=True, progress=False)
    assert timeless(result.history).equals(timeless(expected.history))


@pytest.mark.parametrize("file", ["last.safetensors", "best.safetensors"])
def test_a_full_disk_is_one_line_and_the_run_is_safe(place, home, file):
    """Writing fails for real: of the state, or of the best model before it."""
    assert Command(place, [*COMMAND, "--set", "train.max_epochs=1"]).end()[0] == 0
    run = place / "m.run"
    before = {path: path.read_bytes() for path in run.glob("[a-z]*.*")}
    assert len(before) == 3
    command = [*COMMAND, "--resume"] + ["--set", "train.save_minutes=60"] * (file[0] == "b")
    room = (run / file).stat().st_size - 1
    status, told = Command(place, command, largest_file=room).end()
    assert before == {path: path.read_bytes() for path in run.glob("[a-z]*.*")}
    assert status == 2, told
    assert line_of(told).startswith(f"error: m.run/{file}: cannot be written (")
    status, told = Command(place, [*COMMAND, "--resume"]).end()
    assert status == 0, told
    require_the_same(place, home)
    assert sorted(os.listdir(run)) == sorted(os.listdir(home / "m.run"))
