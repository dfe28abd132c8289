"""A run that is ended, or changed, and goes on: in this process, where it takes a moment."""

import signal
from itertools import count

import pandas as pd
import pytest
import torch

from sagefm import InputError
from sagefm.nn import checkpoint
from sagefm.pp.simulate import simulate
from sagefm.pretrain import Recipe, fit

CHANGES = [
    "network.widths=[16,8,8,8,12]",
    "data.genes=60",
    "data.patch=4",
    "train.batch_size=16",
    "train.learning_rate=3e-3",
    "train.clip_norm=0.5",
    "train.warmup_steps=7",
    "train.max_epochs=4",
    "train.save_minutes=60",  # it is saved when it ends
]
STEPS = 13  # of an epoch: 200 spots


@pytest.fixture(scope="module")
def slides():
    genes = simulate(15).var_names[:100]
    return {
        f"s{i}": simulate(100, genes=genes, seed=i, patient=f"p{i // 2}", slide=f"s{i}")
        for i in range(4)
    }


def recipe(*changes):
    return Recipe.load("small", [*CHANGES, *changes])


def timeless(history):
    return history.drop(columns=["seconds", "spots_per_second"])


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


def at_step(number, act, stage="train_step"):
    """Patch the loop to do something at the n-th step of a stage."""
    from sagefm.pretrain.loop import Training

    numbers, step = count(1), getattr(Training, stage)

    def patched(self, *arguments):
        if next(numbers) == number:
            act()
        return step(self, *arguments)

    return f"sagefm.pretrain.loop.Training.{stage}", patched


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("stage", "number", "epochs"),
    [
        ("train_step", 1, [1]),  # an epoch that is cut short counts where there is no other
        ("train_step", STEPS, [1]),
        ("validation_step", 3, [1]),
        ("train_step", STEPS + 1, [1]),
        ("train_step", 2 * STEPS + 6, [1, 2]),
        ("train_step", 4 * STEPS, [1, 2, 3, 4]),
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


def test_ctrl_c_twice_ends_at_once_and_loses_nothing(slides, whole, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(*at_step(STEPS + 3, lambda: (interrupt(), interrupt())))
        with pytest.raises(KeyboardInterrupt):
            fit(slides, recipe(), folder=tmp_path, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
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


def rewritten(path, change):
    """Write a state anew after a change of its tensors and its header."""
    tensors, header = checkpoint.read(path)
    change(tensors, header)
    checkpoint.write(path, tensors, header)


STATES = {
    "is not a whole safetensors file": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "fails its checksum": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    r"is not the state of a run \(progress.step is '3', not a whole number": lambda path: rewritten(
        path, lambda _, header: header["progress"].update(step="3")
    ),
    r"is not the state of a run \('validation_loss'\)": lambda path: rewritten(
        path, lambda _, header: header["progress"]["rows"][0].pop("validation_loss")
    ),
    r"is not the state of a run \('gene_mean'\)": lambda path: rewritten(
        path, lambda tensors, _: tensors.pop("gene_mean")
    ),
    "is of other genes": lambda path: rewritten(
        path, lambda tensors, _: tensors.update(gene_mean=torch.ones(3))
    ),
    "is not the whole state of a run": lambda path: rewritten(
        path, lambda tensors, _: tensors.update({"optimizer.exp_avg.first": torch.ones(3)})
    ),
    "its weights are not those of the network .*size mismatch": lambda path: rewritten(
        path,
        lambda tensors, _: tensors.update(
            {name: torch.ones(3, 3) for name in tensors if name.endswith(("work.first", "vg.first",
             "sq.first"))}
        ),
    ),
    "is not the state of a run .*is no entry": lambda path: path.write_bytes(
        path.with_name("best.safetensors").read_bytes()
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", STATES)
def test_a_damaged_state_is_one_line_and_nothing_is_deleted(slides, tmp_path, message):
    fit(slides, recipe("train.max_epochs=1"), folder=tmp_path, progress=False)
    STATES[message](tmp_path / "last.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(InputError, match=message) as caught:
        fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    assert str(caught.value).startswith(f"{tmp_path}/last.safetensors: ")
    assert "start again with --overwrite" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in before}


def test_a_best_model_that_is_gone_or_of_another_run(slides, tmp_path):
    other = fit(slides, recipe("train.max_epochs=1", "data.genes=50"), progress=False)
    fit(slides, recipe("train.max_epochs=1"), folder=tmp_path, progress=False)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors: no such file"):
        fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
    other.model.save(tmp_path / "best.safetensors")
    with pytest.raises(InputError, match=r"best\.safetensors: is not of this run"):
        fit(slides, recipe(), folder=tmp_path, resume=True, progress=False)
