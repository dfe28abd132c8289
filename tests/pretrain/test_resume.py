"""A run that ends early, however it ends, and goes on: the same weights as without the end."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pretrain.commands import Command, line_of

from sagefm import SageFM
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate

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
COMMAND += [word for entry in SETTINGS.items() for word in ("--set", "{}={}".format(*entry))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The slides, and the run that nobody ends."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    genes = simulate(15).var_names[:100]
    for i, name in enumerate(NAMES):
        slide = simulate(100, genes=genes, seed=i, patient=f"p{i // 2}", slide=name)
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
    known = [model.trained_on.arrays() for model in models]
    assert all(np.array_equal(known[0][name], known[1][name]) for name in known[1])
    for table in ("m.csv", "m.run/metrics.csv"):
        tables = [timeless(pd.read_csv(each / table)) for each in (folder, home)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    seconds = pd.read_csv(folder / "m.csv")["seconds"]
    assert (seconds.diff().dropna() > 0).all()


def test_the_run_to_compare_with_is_worth_it(home):
    history = pd.read_csv(home / "m.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert step_of(home) == 4 * STEPS
    assert history["validation_loss"].nunique() == 4


DIE = "import os, signal; die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
TERMINATED = """
import os, signal
from sagefm.pretrain.loop import Training
step = Training.train_step
def train_step(self, batch, rate):
    if self.progress.epoch == 1 and batch.number == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, batch, rate)
Training.train_step = train_step
"""
LATER = """
import threading
from sagefm.pretrain.loop import Training
step, number = Training.train_step, [0]
def train_step(self, batch, rate):
    number[0] += 1
    if number[0] == {number}:
        threading.Timer({seconds}, die).start()
    return step(self, batch, rate)
Training.train_step = train_step
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
from sagefm.pretrain.loop import Training
save = Training._save
def _save(self, *arguments):
    if self.progress.epoch == 1 and not self.progress.batch:
        assert self.run.best.exists()
        die()
    save(self, *arguments)
Training._save = _save
""",
    "between the state and the table of an epoch": """
import pandas
from sagefm.pretrain.run import Run
to_csv = pandas.DataFrame.to_csv
pandas.DataFrame.to_csv = lambda self, *a, **k: die() if len(self) == 2 else to_csv(self, *a, **k)
""",
    "in the middle of a backward pass": """
from sagefm.pretrain.loop import Loss
forward, number = Loss.forward, [0]
def killed(self, batch, times):
    loss, number[0] = forward(self, batch, times), number[0] + 1
    if number[0] == 6:
        loss.register_hook(lambda _: die())
    return loss
Loss.forward = killed
""",
    "in validation": """
from sagefm.pretrain.loop import Training
step = Training.validation_step
def validation_step(self, batch):
    step(self, batch)
    if batch.number == 3:
        die()
Training.validation_step = validation_step
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
    # Halves of states, each as large as the whole, would fill the disk in the end.
    assert sorted(os.listdir(place / "m.run")) == sorted(os.listdir(home / "m.run"))


def test_a_scheduler_that_takes_the_machine_back(place, home):
    """SIGTERM: one line, and the run goes on from its last state."""
    command = Command(place, COMMAND, before=TERMINATED)
    status, told = command.end()
    assert status not in (0, None)
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 2  # of the first epoch, and of the end
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
