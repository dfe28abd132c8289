"""Runs that end early and go on, as a user of the command meets them."""

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pretrain.commands import Command, line_of

from sagefm import SageFM
from sagefm._files import locked
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate

TINY = {
    "network.widths": "[16,8,8,8,12]",
    "data.genes": 60,
    "train.batch_size": 16,
    "train.max_epochs": 2,
    "train.save_minutes": 0,
}
PRETRAIN = ["pretrain", "a.h5ad", "b.h5ad", "-o", "m.safetensors", "--recipe", "small"]


def with_settings(**changes):
    """The command, with other values for some settings: ``train__seed=1``."""
    entries = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    return [
        *PRETRAIN,
        *(w for name, value in entries.items() for w in ("--set", f"{name}={value}")),
    ]


COMMAND = with_settings()


@pytest.fixture
def run(run, place):
    """Run `sagefm ...` in the folder of the slides; give status and what is told on stderr."""
    return lambda *words: run(*words)[::2]


def a_slide(i, **more):
    genes = simulate(15).var_names[:100]
    return simulate(60, genes=genes, seed=i, patient=f"p{i}", slide=f"s{i}", **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two slides, and a whole run on them."""
    folder = tmp_path_factory.mktemp("finished")
    for i, name in enumerate("ab"):
        a_slide(i).write_h5ad(folder / f"{name}.h5ad")
    status, told = Command(folder, COMMAND).end()
    assert status == 0, told
    return folder


@pytest.fixture
def place(finished, tmp_path):
    """A copy of the slides alone."""
    for name in "ab":
        shutil.copy(finished / f"{name}.h5ad", tmp_path)
    return tmp_path


DIE = """
import os, signal
from sagefm.pretrain.loop import Training
step, number = Training.train_step, [0]
def train_step(self, batch, rate):
    number[0] += 1
    if number[0] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, rate)
Training.train_step = train_step
"""


@pytest.fixture(scope="module")
def killed(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    for name in "ab":
        shutil.copy(finished / f"{name}.h5ad", folder)
    status, told = Command(folder, COMMAND, before=DIE).end()
    assert status == -signal.SIGKILL, told
    return folder


@pytest.fixture
def unfinished(killed, place):
    """The slides, and a run on them that was killed in its second epoch."""
    shutil.copytree(killed / "m.run", place / "m.run")
    return place / "m.run"


def content(folder):
    """Every file but the hidden ones: locks, and what a run at work is writing."""
    return {path: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def require_refused(run, place, arguments, *words):
    """Status 2, one line with these words, and every file as before."""
    before = content(place)
    status, told = run(*arguments)
    assert status == 2, told
    line = line_of(told)
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert content(place) == before


def require_the_finished(place, finished):
    ours, theirs = (
        checkpoint.read(each / "m.run" / "last.safetensors")[0] for each in (place, finished)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    one, other = (SageFM.load(each / "m.safetensors").network.first for each in (place, finished))
    assert torch.equal(one, other)
    history = pd.read_csv(place / "m.csv")["validation_loss"]
    assert history.equals(pd.read_csv(finished / "m.csv")["validation_loss"])


def test_a_run_leaves_a_model_its_curve_and_its_folder(finished):
    left = {path.name for path in finished.iterdir() if path.name[0] != "."}
    assert left == {"a.h5ad", "b.h5ad", "m.safetensors", "m.csv", "m.png", "m.run"}
    assert {path.name for path in (finished / "m.run").iterdir()} == {
        ".lock", "last.safetensors", "best.safetensors", "metrics.csv", "tensorboard",
    }  # fmt: skip


def test_resume_goes_on(run, place, unfinished, finished):
    assert checkpoint.read(unfinished / "last.safetensors")[1]["progress"]["step"] == 5
    status, told = run(*COMMAND, "--resume")
    assert status == 0, told
    require_the_finished(place, finished)


def test_a_finished_run_can_be_resumed_and_gives_the_same(run, place, finished):
    shutil.copytree(finished, place, dirs_exist_ok=True)
    (place / "m.safetensors").unlink()
    status, told = run(*COMMAND, "--resume")
    assert status == 0, told
    require_the_finished(place, finished)
    status, told = run(*with_settings(train__max_epochs=3), "--resume")
    assert status == 0, told
    assert pd.read_csv("m.csv")["epoch"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__batch_size": 8}, "recipe.train.batch_size = 16, and now it is 8"),
        ({"train__seed": 1}, "recipe.train.seed = 0, and now it is 1"),
        ({"network__widths": "[16,8]"}, "recipe.network.widths = [16, 8, 8, 8, 12]"),
        ({"data__weights": "{a=2.0}"}, "recipe.data.weights.a = None, and now it is 2.0"),
        ({"data__genes": 50}, "recipe.data.genes = 60, and now it is 50"),
    ],
)
def test_another_recipe_is_refused(run, place, unfinished, changes, words):
    command = [*with_settings(**changes), "--resume"]
    require_refused(run, place, command, "m.run: the run to resume has ", words, "--overwrite")


def write(slide, path):
    path.unlink()
    slide.write_h5ad(path)


def test_other_slides_are_refused(run, place, unfinished):
    shutil.copy(place / "a.h5ad", place / "c.h5ad")
    more = ["pretrain", "c.h5ad", *COMMAND[1:], "--resume"]
    require_refused(run, place, more, "m.run: the run to resume has ", "slides.c")
    write(a_slide(1)[:50].copy(), place / "b.h5ad")
    words = ["slides.b.spots = 60, and now it is 50"]
    require_refused(run, place, [*COMMAND, "--resume"], *words)


def test_a_slide_with_other_counts_is_refused(run, place):
    """Of the same name and size, and with the same genes."""
    genes = simulate(15).var_names[:100]
    (place / "genes.txt").write_text("\n".join(genes))
    command = with_settings(data__genes="genes.txt")
    assert run(*command)[0] == 0
    slide = a_slide(1)
    slide.X = slide.X[np.random.default_rng(0).permutation(60)]
    write(slide, place / "b.h5ad")
    require_refused(run, place, [*command, "--resume"], "m.run: the run to resume has ", "slides.b")


def test_without_a_run_there_is_nothing_to_resume(run, place):
    require_refused(run, place, [*COMMAND, "--resume"], "m.run: holds no run to resume")
    assert not (place / "m.run").exists()


def test_a_run_that_could_go_on_is_not_written_over(run, place, unfinished, finished):
    words = ["m.run: holds a run that has not finished", "--resume", "--overwrite"]
    require_refused(run, place, COMMAND, *words)
    before = (unfinished / "last.safetensors").stat().st_ino
    status, told = run(*COMMAND, "--overwrite")
    assert status == 0, told
    assert (unfinished / "last.safetensors").stat().st_ino != before
    require_the_finished(place, finished)


def test_a_run_that_is_refused_later_leaves_the_earlier_one(run, place, unfinished):
    """--overwrite takes nothing away before the new run can begin."""
    bad = with_settings(data__validation='["nobody"]')
    require_refused(run, place, [*bad, "--overwrite"], "no slide is of patient 'nobody'")


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def overwritten(path):
    path.write_bytes(b"x" * path.stat().st_size)


def a_model(path):
    shutil.copy(path.with_name("best.safetensors"), path)


def without_moments(path):
    weights, header = checkpoint.read(path)
    kept = {name: tensor for name, tensor in weights.items() if "exp_avg_sq" not in name}
    checkpoint.write(path, kept, {"progress": header["progress"], "facts": header["facts"]})


@pytest.mark.parametrize("damage", [truncated, empty, overwritten, a_model, without_moments])
def test_a_damaged_state_is_told(run, place, unfinished, damage):
    damage(unfinished / "last.safetensors")
    require_refused(run, place, [*COMMAND, "--resume"], "m.run/last.safetensors: is not ")


@pytest.mark.parametrize("damage", [truncated, os.unlink])
def test_a_damaged_best_model_is_told(run, place, unfinished, damage):
    damage(unfinished / "best.safetensors")
    require_refused(run, place, [*COMMAND, "--resume"], "m.run/best.safetensors: ")


def test_a_file_where_the_run_would_be(run, place):
    (place / "m.run").write_text("mine")
    require_refused(run, place, COMMAND, "m.run: cannot be written")


def test_a_second_run_into_the_folder_is_refused_and_the_first_goes_on(run, place, finished):
    first = Command(place, COMMAND, before=DIE.replace("SIGKILL", "SIGSTOP"))  # it holds its breath
    state = place / "m.run" / "last.safetensors"
    assert first.until(
        lambda: state.exists() and checkpoint.read(state)[1]["progress"]["step"] == 5
    )
    for flags, words in (
        (["--resume"], f"m.run: process {first.process.pid} is working in it"),
        (["--overwrite"], f"m.run: process {first.process.pid} is working in it"),
        ([], "m.run: holds a run that has not finished"),
    ):
        require_refused(run, place, [*COMMAND, *flags], words)
    other = [word.replace("m.safetensors", "n.safetensors") for word in COMMAND]
    assert run(*other)[0] == 0  # an OUT of its own is free
    first.until(lambda: first.send(signal.SIGCONT))
    status, told = first.end()
    assert status == 0, told
    require_the_finished(place, finished)


def test_a_second_run_that_starts_at_the_same_moment_is_refused(run, place):
    """Before the first has saved anything."""
    with locked("m.run"):
        require_refused(run, place, COMMAND, f"m.run: process {os.getpid()} is working in it")


FULL = """
import errno
from tensorboard.summary.writer.record_writer import RecordWriter
def write(self, data):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
import os
RecordWriter.write = write
"""


def test_a_disk_too_full_for_the_logs_is_one_line(run, place, unfinished):
    """They are written by a thread of TensorBoard's own."""
    before = SageFM.load(unfinished / "best.safetensors").network.first
    status, told = Command(place, [*COMMAND, "--resume"], before=FULL).end()
    assert status in (0, 2), told  # a run may well go on without its pictures
    if status:
        assert "No space left" in line_of(told)
    assert "Traceback" not in told
    assert (
        torch.equal(SageFM.load(unfinished / "best.safetensors").network.first, before)
        or not status
    )
    status, told = run(*COMMAND, "--resume")
    assert status == 0, told


def test_a_patient_key_is_taken_as_it_is(run, place):
    slide = a_slide(1)
    slide.obs["patient's id"] = slide.obs.pop("patient")
    write(slide, place / "b.h5ad")
    slide = a_slide(0)
    slide.obs["patient's id"] = slide.obs.pop("patient")
    write(slide, place / "a.h5ad")
    status, told = run(*COMMAND, "--patient-key", "patient's id")
    assert status == 0, told
    recipe = SageFM.load("m.safetensors").provenance["recipe"]
    assert recipe["data"]["patient_key"] == "patient's id"
