"""``sagefm pretrain --refits``: a folder of models."""

import signal

import pytest
from tests.pretrain.commands import Command, line_of

from sagefm import SageFM
from sagefm.nn import checkpoint
from sagefm.pp.pseudonyms import pseudonym
from sagefm.pp.simulate import simulate

COMMAND = [
    "pretrain", "a.h5ad", "b.h5ad", "c.h5ad", "-o", "out", "--recipe", "small",
    "--set", "network.widths=[16,8,8,8,12]", "--set", "data.genes=60",
    "--set", "data.validation=[]", "--set", "train.batch_size=16",
    "--set", "train.max_epochs=2", "--set", "train.save_minutes=0",
]  # fmt: skip
EACH = [*COMMAND, "--refits", "each"]
# In the second epoch of the second model.
DIE = """
import os, signal
from sagefm.pretrain.loop import Training
step, number = Training.train_step, [0]
def train_step(self, batch, rate):
    number[0] += 1
    if number[0] == 27:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, rate)
Training.train_step = train_step
"""


def write_slides(folder):
    genes = simulate(15).var_names[:80]
    for seed, name in enumerate("abc"):
        simulate(60, genes=genes, seed=seed, patient=name, slide=name).write_h5ad(
            folder / f"{name}.h5ad"
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_slides(folder)
    status, told = Command(folder, EACH).end()
    assert status == 0, told
    return folder, told


def names(folder):
    return sorted(path.name for path in folder.iterdir())


MODELS = [f"without_{name}.safetensors" for name in "abc"]


def test_a_model_for_each_patient(finished):
    folder, told = finished
    assert names(folder / "out") == MODELS
    for name in "abc":
        assert f"out/without_{name}.safetensors: SageFM(published, 60 genes" in told
        model = SageFM.load(folder / "out" / f"without_{name}.safetensors")
        assert model.provenance["left_out"] == [pseudonym(name)]
        assert set(model.provenance["slides"]) == set(map(pseudonym, "abc")) - {pseudonym(name)}


def test_a_killed_command_goes_on_where_it_was(run, tmp_path, finished):
    write_slides(tmp_path)
    status, told = Command(tmp_path, EACH, before=DIE).end()
    assert status == -signal.SIGKILL, told
    assert names(tmp_path / "out") == ["without_a.safetensors", "without_b.run"]
    first = (tmp_path / "out" / MODELS[0]).stat().st_mtime_ns
    status, _, told = run(*EACH)
    assert status == 0, told
    assert "out/without_a.safetensors: is trained already" in told
    assert "epoch 1" not in told.partition("model 3 of 3")[0]
    assert (tmp_path / "out" / MODELS[0]).stat().st_mtime_ns == first
    assert names(tmp_path / "out") == MODELS
    for name in MODELS:
        ours, theirs = (checkpoint.read(each / "out" / name)[0] for each in (tmp_path, finished[0]))
        assert all(ours[part].equal(theirs[part]) for part in theirs)


def test_groups_and_a_table_of_patients(run, tmp_path):
    write_slides(tmp_path)
    (tmp_path / "table.csv").write_text("slide,patient\na,x\nb,x\nc,y\n")
    status, out, told = run(*COMMAND, "--refits", "2", "--patients", "table.csv")
    assert status == 0, told
    assert names(tmp_path / "out") == ["without_x.safetensors", "without_y.safetensors"]
    assert out.count("no patient held out") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--refits", "all"], "--refits all: write each, or a number"),
        (["--refits", "-1"], "--refits -1: write each, or a number"),
        (["--refits", "4"], "the number of refits is 4: the slides are of 3"),
        (["--refits", "each", "--devices", "2"], "leave out --devices"),
        (["--refits", "each", "-o", "m.safetensors"], "m.safetensors: name a folder"),
        (["--refits", "each", "--patient-key", "donor"], "obs has no column 'donor'"),
    ],
)
def test_wrong_words_are_one_line(run, tmp_path, words, expected):
    write_slides(tmp_path)
    before = names(tmp_path)
    status, _, told = run(*COMMAND, *words)
    assert status == 2
    assert expected in line_of(told)
    assert names(tmp_path) == before
