"""Errors of the system are one line and status 2; a reader that has seen enough is none."""

import os
import subprocess
import sys

import pytest

from sagefm import InputError


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("a.h5ad: broken\n  (file write\nfailed)"), 2, "a.h5ad: broken (file write"),
        (PermissionError(13, "Permission denied", "no/a.h5ad"), 2, "no/a.h5ad: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device; free some space"),
        (OSError("Unable to open file\n(truncated)"), 2, "Unable to open file (truncated)"),
        (OSError(40, "Too many levels of symbolic links", "x"), 2, "x: Too many levels"),
        (ValueError("embedded null byte"), 2, "a path has a null byte"),
        (MemoryError(), 2, "the memory is full"),
        (RuntimeError("x: you tried to allocate 9 bytes. not enough memory: you tried to "
                      "allocate 9 bytes"), 2, "the memory is full"),
        (KeyError("odd\nkey"), 1, "KeyError: 'odd"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(run, monkeypatch, error, status, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("sagefm.cli.models.local_copy", fail)
    found, out, err = run("info")
    assert found == status
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not out


def test_nothing_is_said_if_nobody_reads_on():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sagefm", "info"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert done.stderr == b""


def test_a_folder_that_may_not_be_entered(run, tmp_path, monkeypatch):
    """As root may enter everything, the system is asked to refuse."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    status, _, err = run("convert", "x.pt", "--genes", "g.txt", "-o", "no/m.safetensors")
    assert status == 2
    assert err == (
        f"error: no/m.safetensors: cannot be written in {tmp_path}; choose another place\n"
    )
