import os
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sagefm import InputError, _files

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
    _files.write_slide(wide(slide, "obsm", NAMES), tmp_path / "o.h5ad")
    with h5py.File(tmp_path / "o.h5ad") as file:
        table = file["obsm/table"]
        assert list(table.attrs["column-order"]) == NAMES
        assert (table[NAMES[-1]][:] == 1).all()
    assert not h5py.get_config().track_order


@pytest.mark.parametrize("slot", ["obs", "var", "obsm", "varm"])
def test_order_is_tracked_for_wide_tables_alone(slide, tmp_path, monkeypatch, slot):
    tracked = []
    monkeypatch.setattr(
        AnnData, "write_h5ad", lambda *_: tracked.append(h5py.get_config().track_order)
    )
    for names in (NAMES, NAMES[:9]):
        _files.write_slide(wide(slide, slot, names), tmp_path / "o.h5ad")
    assert tracked == [True, False]


def test_settings_are_as_before_where_writing_fails(slide, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(AnnData, "write_h5ad", fail)
    with pytest.raises(OSError, match="disk"):
        _files.write_slide(wide(slide, "obs", NAMES), tmp_path / "o.h5ad")
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
