"""A hundred trials; ``make fuzz`` runs ten thousand, and interrupts commands as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER, SHARES = 120, 2


@pytest.mark.parametrize("share", range(SHARES))
def test_damaged_and_odd_input_is_refused_in_one_line_or_answered_right(share):
    words = ["--number", NUMBER // SHARES, "--seed", share * NUMBER // SHARES, "--jobs", 1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz", *map(str, words)], cwd=ROOT,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "src"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"all{NUMBER // SHARES:29,}" in done.stdout


def test_commands_that_are_killed_or_whose_disk_is_full_lose_and_leave_nothing():
    words = ["--kills", 4, "--disks", 5]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.interrupt", *map(str, words)], cwd=ROOT,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "src"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
