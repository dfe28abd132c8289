"""Shared by the benchmarks: data, a description of the machine, measuring in a separate process."""

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
OUT = HERE / "out"
SLIDE = SHARED / "slides" / "dlpfc_151673.h5ad"
GENES = SHARED / "sagefm_published_genes.txt"

sys.path.insert(0, str(HERE.parent / "tests"))  # for `reference`, the published way


PROCESSOR_TIME = "--processor-time"
"""Count the time of the processor instead, which on a busy machine is the steadier one."""
clock = time.process_time if PROCESSOR_TIME in sys.argv else time.perf_counter


def require_data():
    if not SHARED.is_dir():
        sys.exit(f"no real data: {SHARED} is missing")


def memory(entry):
    """Read an entry of this process's status, MB: VmRSS is resident now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {entry}")


class Peak:
    """Highest resident memory within a block, MB above its start; Linux keeps count of it."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # begin anew
        self._start = memory("VmRSS")
        return self

    def __exit__(self, *_):
        self.mb = memory("VmHWM") - self._start


def in_own_process(script, *arguments):
    """Run a side of a benchmark alone; it prints one line of JSON last."""
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    import torch

    import sagefm

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    return (
        f"sagefm {sagefm.__version__} ({commit}), torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}"
        f"{', processor time' if PROCESSOR_TIME in sys.argv else ''}"
    )


def report(name, lines):
    """Print and keep the lines of a report."""
    OUT.mkdir(exist_ok=True)
    text = "\n".join([f"# {name}", *lines, machine(), ""])
    (OUT / f"{name}.txt").write_text(text)
    print(text)
