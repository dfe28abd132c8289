"""Several processes train what one process trains."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pretrain.commands import Command, as_torchrun, line_of

from sagefm import SageFM
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate

SETTINGS = {
    "network.widths": "[16,8,8,8,12]",
    "data.genes": 60,
    "data.patch": 4,
    "train.batch_size": 16,
    "train.learning_rate": 1e-3,
    "train.weight_decay": 1e-4,
    "train.clip_norm": 0.5,
    "train.max_epochs": 3,
    "train.save_minutes": 0,
}
NAMES = [f"s{i}" for i in range(4)]
STEPS = 12  # of an epoch: 185 spots
COMMAND = ["pretrain", *(f"{name}.h5ad" for name in NAMES), "-o", "m.safetensors", "--recipe"]
COMMAND += ["small"]
COMMAND += [word for entry in SETTINGS.items() for word in ("--set", "{}={}".format(*entry))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The slides, of sizes that share unevenly, and the run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    genes = simulate(15).var_names[:100]
    for i, name in enumerate(NAMES):
        slide = simulate(90 + 5 * i, genes=genes, seed=i, patient=f"p{i // 2}", slide=name)
        slide.write_h5ad(folder / f"{name}.h5ad")
    status, told = Command(folder, COMMAND).end()
    assert status == 0, told
    return folder


def link_slides(home, folder):
    for name in NAMES:
        (folder / f"{name}.h5ad").symlink_to(home / f"{name}.h5ad")


@pytest.fixture
def place(home, tmp_path):
    link_slides(home, tmp_path)
    return tmp_path


def together(place, n, arguments, before="", nodes=1):
    """The command in n processes, as torchrun starts them."""
    return [Command(place, arguments, environment=e, before=before) for e in as_torchrun(n, nodes)]


def state_of(folder):
    return checkpoint.read(folder / "m.run" / "last.safetensors")


def step_of(folder):
    if not (folder / "m.run" / "last.safetensors").exists():
        return 0
    return state_of(folder)[1]["progress"]["step"]


def require_near(folder, home, atol=1e-5):
    """Weights of the last and of the best epoch, and all losses, to rounding."""
    (ours, header), (theirs, expected) = state_of(folder), state_of(home)
    assert header["progress"]["step"] == expected["progress"]["step"]
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=atol, rtol=1e-4, msg=name)
    models = [SageFM.load(each / "m.safetensors") for each in (folder, home)]
    for a, b in zip(*(model.network.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)
    ours, theirs = (model.trained_on.groups for model in models)
    assert np.array_equal(ours, theirs)
    one, other = (pd.read_csv(each / "m.csv") for each in (folder, home))
    for column in ("epoch", "learning_rate", "gene_mean", "neighbor_mean"):
        assert one[column].equals(other[column])
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(one[column], other[column], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n", "nodes"), [(3, 1), (2, 2)])
def test_uneven_shares_and_several_nodes_give_the_same(place, home, n, nodes):
    ends = [command.end() for command in together(place, n, COMMAND, nodes=nodes)]
    assert [status for status, _ in ends] == [0] * n, ends
    assert not any(told for _, told in ends[1:])
    require_near(place, home)


DIE = """
import os, signal
from sagefm.pretrain.loop import Training
step, number = Training.train_step, [0]
def train_step(self, batch, rate):
    number[0] += 1
    if number[0] == {number} and self.rank in {ranks}:
        os.kill(os.getpid(), signal.{signal})
    return step(self, batch, rate)
Training.train_step = train_step
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_which_goes_on(place, home, rank):
    before = DIE.format(number=STEPS + 5, ranks=[rank], signal="SIGKILL")
    commands = together(place, 2, COMMAND, before)
    ends = [command.end() for command in commands]
    assert ends[rank][0] == -signal.SIGKILL
    assert ends[1 - rank][0] not in (0, None)  # it does not wait for ever
    assert len(ends[1 - rank][1].splitlines()) <= 2  # a line about the first epoch, and the error
    assert STEPS < step_of(place) <= STEPS + 5
    ends = [command.end() for command in together(place, 2, [*COMMAND, "--resume"])]
    assert [status for status, _ in ends] == [0, 0], ends
    require_near(place, home)


@pytest.mark.parametrize("ranks", [[0, 1], [1]])
def test_ctrl_c_ends_all_processes_at_the_same_step(place, home, ranks):
    """A terminal signals all of them, a scheduler perhaps one, and never at the same moment."""
    before = DIE.format(number=STEPS + 5, ranks=ranks, signal="SIGINT")
    ends = [command.end() for command in together(place, 2, COMMAND, before)]
    assert [status for status, _ in ends] == [0, 0], ends
    assert pd.read_csv(place / "m.csv")["epoch"].tolist() == [1]
    ends = [command.end() for command in together(place, 2, [*COMMAND, "--resume"])]
    assert [status for status, _ in ends] == [0, 0], ends
    require_near(place, home)


def test_a_run_of_one_process_goes_on_in_two(place, home):
    before = DIE.format(number=STEPS + 5, ranks=[0], signal="SIGKILL")
    assert Command(place, COMMAND, before=before).end()[0] == -signal.SIGKILL
    ends = [command.end() for command in together(place, 2, [*COMMAND, "--resume"])]
    assert [status for status, _ in ends] == [0, 0], ends
    require_near(place, home)


@pytest.mark.parametrize(
    ("n", "changes", "words"),
    [
        (5, [], "5 processes need batches of 20 spots at least"),
        (2, ["train.batch_size=4"], "train.batch_size is 4"),
    ],
)
def test_too_many_processes_for_a_batch_are_refused(place, n, changes, words):
    sets = [word for change in changes for word in ("--set", change)]
    status, told = Command(place, [*COMMAND, *sets, "--devices", n]).end()
    assert status == 2
    assert words in line_of(told)
    assert not (place / "m.run" / "last.safetensors").exists()


def test_a_full_disk_ends_all_processes_with_one_line(place, home):
    [first, second] = as_torchrun(2)
    commands = [
        Command(place, COMMAND, environment=first, largest_file=4000),
        Command(place, COMMAND, environment=second),
    ]
    (status, told), (other, quiet) = (command.end() for command in commands)
    assert status == 2
    assert "m.run/last.safetensors: cannot be written" in line_of(told)
    assert other not in (0, None)
    assert quiet == ""  # both would write to one terminal


STARTS = {
    "devices": ["-m", "sagefm.cli", *COMMAND, "--devices", "2"],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
                 as_torchrun(1)[0]["MASTER_PORT"], "-m", "sagefm.cli", *COMMAND],
}  # fmt: skip


@pytest.fixture(scope="module")
def typed(home, tmp_path_factory):
    """Both ways to start two processes, as a user types them, and at once to save time."""
    started = {}
    for name, arguments in STARTS.items():
        folder = tmp_path_factory.mktemp(name)
        link_slides(home, folder)
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started[name] = folder, process
    yield started
    for _, process in started.values():
        with suppress(ProcessLookupError):  # as it should be: all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("start", STARTS)
def test_two_processes_give_the_weights_of_one(typed, home, start):
    folder, process = typed[start]
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len([line for line in err.splitlines() if "epoch 1:" in line]) == 1  # one tells for both
    assert out.count("best epoch") == 1
    require_near(folder, home)
