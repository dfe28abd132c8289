"""Intermediate results of long computations: whose they are, and whether they are whole."""

import subprocess
import sys

import numpy as np
import pytest

from sagefm import InputError
from sagefm._cache import ResumableCache


def fill(folder, facts, values, *, fail=False):
    """Compute an array unless it is cached; say whether it was computed."""
    computed = []

    def compute():
        computed.append(1)
        return np.asarray(values)

    try:
        with ResumableCache.open(folder, facts) as cache:
            np.testing.assert_array_equal(cache.get("a b/c", compute), values)
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return bool(computed)


@pytest.fixture
def folder(tmp_path):
    """What a killed run has left."""
    assert fill(tmp_path / "parts", {"seed": 1}, [1.5, np.nan], fail=True)
    return tmp_path / "parts"


def test_a_killed_run_resumes_and_leaves_nothing(folder):
    assert not fill(folder, {"seed": 1}, [1.5, np.nan])
    assert not folder.exists()


def test_another_computation_takes_nothing(folder):
    assert fill(folder, {"seed": 2}, [3.0])


def test_an_array_of_another_computation_is_computed_again(folder, tmp_path):
    (array,) = folder.glob("*.npy")
    assert fill(tmp_path / "other", {"seed": 2}, [3.0], fail=True)
    (tmp_path / "other" / array.name).write_bytes(array.read_bytes())
    assert fill(tmp_path / "other", {"seed": 2}, [3.0])


@pytest.mark.parametrize("harm", ["half", "empty", "flipped", "foreign", "pickle"])
def test_a_damaged_array_is_computed_again(folder, harm):
    (array,) = folder.glob("*.npy")
    content = bytearray(array.read_bytes())
    if harm in ("foreign", "pickle"):
        odd = [3.0] if harm == "foreign" else [{}]
        with array.open("wb") as file:
            np.save(file, np.array(odd), allow_pickle=True)
    else:
        content[-40] ^= 1
        kept = {"half": len(content) // 2, "empty": 0, "flipped": len(content)}[harm]
        array.write_bytes(content[:kept])
    assert fill(folder, {"seed": 1}, [1.5, np.nan])


def test_two_processes_never_share_a_folder(folder):
    hold = (
        "import sys; from pathlib import Path; from sagefm._cache import ResumableCache\n"
        "with ResumableCache.open(Path(sys.argv[1]), {'seed': 9}): print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match=f"process {other.pid} is working in it"):
            fill(folder, {"seed": 1}, [1.5, np.nan])
        other.kill()
    assert fill(folder, {"seed": 1}, [1.5, np.nan])  # the other has removed the arrays


def test_a_run_that_computed_nothing_leaves_nothing(tmp_path):
    with pytest.raises(InputError), ResumableCache.open(tmp_path / "parts", {}):
        raise InputError("no pair is left")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["data.npy", "notes.txt"])
def test_a_folder_of_other_things_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(InputError, match="holds other things"):
        fill(tmp_path, {}, [1.0])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fill(None, {}, [1.0])
    assert not list(tmp_path.iterdir())
