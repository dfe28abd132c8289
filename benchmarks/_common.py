"""What the benchmarks share: data, machine, and measuring in a process of its own."""

import json
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
OUT = HERE / "out"
SLIDE = SHARED / "slides" / "dlpfc_151673.h5ad"
GENES = SHARED / "sagefm_published_genes.txt"

sys.path.insert(0, str(HERE.parent / "tests"))  # for `reference`, the published way


def require_data():
    if not SHARED.is_dir():
        sys.exit(f"no real data: {SHARED} is missing")


def resident():
    """Resident memory of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


class Peak:
    """Highest resident memory within a block, MB above its start, sampled every 2 ms."""

    def __enter__(self):
        self.start = self.highest = resident()
        self._on = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while self._on:
            self.highest = max(self.highest, resident())
            time.sleep(0.002)

    def __exit__(self, *_):
        self._on = False
        self._thread.join()
        self.highest = max(self.highest, resident())
        self.mb = self.highest - self.start


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
    )


def report(name, lines):
    """Print and keep the lines of a report."""
    OUT.mkdir(exist_ok=True)
    text = "\n".join([f"# {name}", *lines, machine(), ""])
    (OUT / f"{name}.txt").write_text(text)
    print(text)
