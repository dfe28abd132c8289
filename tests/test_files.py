import io
import os
import signal
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from sagefm import InputError, _files, _strays
from sagefm._hdf5 import Sink, write_h5ad

NAMES = [f"NOT{i}A" for i in range(4200)]


def wide(slide, slot, names):
    """A slide with one more table."""
    held = slide[:20, :30].copy()
    rows = held.obs_names if slot.startswith("obs") else held.var_names
    table = pd.DataFrame(np.ones((len(rows), len(names)), dtype=np.float32), rows, names)
    if slot in ("obs", "var"):
        setattr(held, slot, table)
    else:
        getattr(held, slot)["table"] = table
    return held


def test_a_table_of_thousands_of_columns_fits_into_a_file(slide, tmp_path):
    _files.write_anndata(wide(slide, "obsm", NAMES), tmp_path / "o.h5ad")
    with h5py.File(tmp_path / "o.h5ad") as file:
        table = file["obsm/table"]
        assert list(table.attrs["column-order"]) == NAMES
        assert (table[NAMES[-1]][:] == 1).all()
    assert not h5py.get_config().track_order


@pytest.mark.parametrize("slot", ["obs", "var", "obsm", "varm"])
def test_order_is_tracked_for_wide_tables_alone(slide, tmp_path, monkeypatch, slot):
    tracked = []
    monkeypatch.setattr(
        _files, "write_h5ad", lambda *_: tracked.append(h5py.get_config().track_order)
    )
    for names in (NAMES, NAMES[:9]):
        _files.write_anndata(wide(slide, slot, names), tmp_path / "o.h5ad")
    assert tracked == [True, False]


def test_settings_are_as_before_where_writing_fails(slide, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "the disk\nis full")

    monkeypatch.setattr(_files, "write_h5ad", fail)
    with pytest.raises(InputError, match=r"o.h5ad: cannot be written \(the disk is full\)"):
        _files.write_anndata(wide(slide, "obs", NAMES), tmp_path / "o.h5ad")
    assert not h5py.get_config().track_order
    assert not list(tmp_path.iterdir())


HOLD = """
import sys
from sagefm._files import locked
with locked(sys.argv[1]):
    print(1, flush=True)
    input()
"""


def test_a_folder_is_for_one_process_and_free_again_when_that_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        for _ in range(2):
            with pytest.raises(InputError) as refused, _files.locked(tmp_path):
                pass
            assert str(refused.value) == (
                f"{tmp_path}: process {other.pid} is working in it; wait for it, or choose another "
                "folder"
            )
        other.kill()
    with _files.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(InputError, match="working in it"), _files.locked(tmp_path):
            pass


@pytest.mark.parametrize("made", [True, False])
def test_a_lock_leaves_no_folder_that_it_made(tmp_path, made):
    folder = tmp_path / "new" / "inner"
    if not made:
        folder.mkdir(parents=True)
    with _files.locked(folder):
        assert (folder / ".lock").is_file()
    assert (tmp_path / "new").exists() is not made


def write(path, text="new"):
    with _files.replacing(path) as beside:
        beside.write_text(text)


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mine = []
        for _ in range(2):
            with _files.replacing(tmp_path / "o.csv") as beside:
                mine.append(beside.name)
        name = mine[0].replace(f".{os.getpid()}.", f".{other.pid}.")
        foreign = name.replace(_strays.HOST, "00000000")
        others = ["data.csv", ".o.csv", mine[0].replace(".csv", ".h5ad"), ".other.123.csv"]
        for stray in (name, foreign, *others):
            (tmp_path / stray).write_text("half")
        write(tmp_path / "o.csv")
        assert {path.name for path in tmp_path.iterdir()} == {"o.csv", name, foreign, *others}
        other.communicate(b"\n")
    write(tmp_path / "o.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"o.csv", foreign, *others}
    os.utime(tmp_path / foreign, (1, 1))  # of another machine, and nobody has changed it for long
    write(tmp_path / "o.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"o.csv", *others}


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "big").mkdir()
    for name in ("there.csv", "new.csv"):
        (tmp_path / name).symlink_to(tmp_path / "big" / name)
    (tmp_path / "big" / "there.csv").write_text("old")
    for name in ("there.csv", "new.csv"):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "big" / name).read_text() == "new"


def test_names_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in {
        "a" * 300 + ".csv": "File name too long",
        "a\0b.csv": "null",
        "file/x.csv": "cannot be written",
        "pipe.csv": "is no file but a device or a pipe",
        ".": "is a folder",
        "b" * 300 + "/x.csv": "File name too long",
    }.items():
        for attempt in (_files.require_writable, write):
            with pytest.raises(InputError, match=said) as refused:
                attempt(tmp_path / name)
            assert "\n" not in str(refused.value)
            assert "\0" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe.csv"]
    write(tmp_path / ("c" * 251 + ".csv"))  # as long as a name may be


def test_a_failed_write_leaves_no_folder(tmp_path):
    def fail():
        with _files.replacing(tmp_path / "a" / "b" / "o.csv"):
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match="Input/output error"):
        fail()
    assert not list(tmp_path.iterdir())


def test_hdf5_finds_again_what_could_not_be_written(tmp_path):
    """As on a disk that fills: nothing fails in HDF5, and the first error is kept."""

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                raise OSError(28, "No space left on device")
            return super().write(data)

    values = np.arange(3000.0)
    for room in (0, 90, 2000, 9000, 10**6):
        with Full(tmp_path / "o.h5", "w+") as file:
            sink = Sink(file)
            with h5py.File(sink, "w") as written:
                for name in "abc":
                    written.create_dataset(name, data=values, chunks=(500,), compression="gzip")
            assert (sink.error is None) is (room == 10**6)
            with h5py.File(sink) as read:
                assert all((read[name][:] == values).all() for name in "abc")


def test_a_signal_waits_until_a_slide_is_written(slide, tmp_path, monkeypatch):
    write = Sink.write

    def interrupted(self, data):
        signal.raise_signal(signal.SIGINT)
        return write(self, data)

    monkeypatch.setattr(Sink, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_h5ad(slide[:9, :9].copy(), tmp_path / "o.h5ad")
    assert ad.read_h5ad(tmp_path / "o.h5ad").shape == (9, 9)
