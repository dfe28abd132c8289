"""Kill commands at random moments, and fill their disk: nothing is lost, nothing is left.

``python -m tests.fuzz.interrupt --kills 200 --disks 200``
"""

import argparse
import hashlib
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import anndata
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from . import warm  # noqa: F401  the imports that every trial shares
from .kit import Kit, make
from .process import Ended, command, run

COMMANDS = {
    "embed": "embed {s0} -m {model} -o {out}/o.h5ad",
    "embed many": "embed {s0} {s1} {s2} {s3} -m {model} -o {out}/o",
    "corpus build": "corpus build {s0} {s1} {s2} {s3} -o {out}/c",
    "pretrain": (
        "pretrain {s0} {s1} {s2} {s3} --recipe {recipe} --set train.max_epochs=4 "
        "-o {out}/m.safetensors"
    ),
    "perturb": "perturb {s0} {s1} -m {model} --pairs {pairs} -o {out}/o.csv",
    "evaluate": (
        "evaluate --slides {s0} {s1} -m {model} --protocol recovery --protocol domains "
        "--label-key domain --no-mofa -o {out}/e"
    ),
    "domains": "domains {embedded} -n 3 -o {out}/o.h5ad",
    "impute": "impute {s0} -m {model} --genes {genes} -o {out}/o.h5ad",
    "annotate": "annotate {s0} --known {s1} {s2} {s3} -m {model} -o {out}/o.h5ad",
    "rare": "rare {s0} -m {model} -o {out}/o.h5ad",
    "influence": "influence {s0} -m {model} --genes {genes} -o {out}/o.csv",
    "check": "check {s0} -m {model} --page {out}/o.html",
    "convert": "convert {published} --genes {list} -o {out}/m.safetensors",
}
"""Commands that write to the folder ``out``."""
KILLED = ("embed", "embed many", "corpus build", "pretrain", "perturb", "evaluate")
"""Those that are killed; the disk of all is filled."""


def execute(name: str, kit: Kit, out: Path, *, again: bool = False, **limits: Any) -> Ended:
    """Run a command; `again` takes up a run that was killed."""
    paths = {f"s{i}": kit[f"s{i}.h5ad"] for i in range(4)} | {
        "out": out, "model": kit["published.safetensors"], "recipe": kit["recipe.toml"],
        "pairs": kit["pairs.csv"], "embedded": kit["embedded.h5ad"], "list": kit["genes.txt"],
        "published": kit["published.pt"], "genes": ",".join(kit.symbols[:4]),
    }  # fmt: skip
    words = [word.format(**paths) for word in COMMANDS[name].split()]
    if again and any(out.glob("*.run/last.*")):
        words.append("--resume")
    return run(lambda: command(*words), **limits)


def contents(folder: Path) -> dict[str, str]:
    """What the files of a folder hold, without what differs from run to run (times, versions)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and ".run/" not in name and path.name != ".lock":
            # A killed run leaves unfinished files, hidden; the next run removes them.
            found[name] = "" if path.name.startswith(".") else _content(path)
    return found


def _content(path: Path) -> str:
    if path.suffix == ".h5ad":
        slide = anndata.read_h5ad(path)
        return _hash(*(np.ascontiguousarray(slide.obsm[key]) for key in sorted(slide.obsm)))
    if path.suffix == ".safetensors":
        return _hash(*(values for _, values in sorted(load_file(path).items())))
    if path.suffix == ".csv" and "seconds" not in path.read_text():
        return _hash(path.read_bytes())
    if path.suffix == ".csv":
        return ",".join(pd.read_csv(path).columns)
    return "" if path.suffix in (".png", ".json", ".html", ".md") else _hash(path.read_bytes())


def _hash(*values: np.ndarray | bytes) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value if isinstance(value, bytes) else value.tobytes())
    return digest.hexdigest()[:16]


def kill(name: str, kit: Kit, out: Path, after: float, expected: dict[str, str]) -> tuple[str, str]:
    """Kill a command, look at what it left, run it again: what is wrong, and how it had ended."""
    out.mkdir(parents=True)
    ended = execute(name, kit, out, kill_after=after)
    state = "killed" if ended.status is None else "ended before"
    for file, content in contents(out).items():
        whole = file in expected and "/" not in file and not file.startswith(".")
        if whole and not file.endswith(".csv") and content != expected[file]:
            return f"{file} is there, but not whole", state
    if ended.status is not None:
        return ended.fault, state
    again = execute(name, kit, out, again=True)
    if again.status != 0:
        return f"again: {again.fault or again.err.strip().splitlines()[-1:]}", state
    return _compare(contents(out), expected), state


def _compare(got: dict[str, str], expected: dict[str, str]) -> str:
    if left := sorted(set(got) - set(expected)):
        return f"left behind: {left[:5]}"
    if lost := sorted(set(expected) - set(got)):
        return f"lost: {lost[:5]}"
    other = [name for name in expected if got[name] != expected[name]]
    return f"other numbers: {other[:5]}" if other else ""


def fill(name: str, kit: Kit, out: Path, largest: int, expected: dict[str, str]) -> tuple[str, str]:
    """Run a command that cannot write large files: what is wrong, and how it had ended."""
    out.mkdir(parents=True)
    ended = execute(name, kit, out, largest_file=largest)
    state = {0: "fits", 2: "refused"}.get(ended.status or 0, "other")
    if ended.fault:
        return f"{ended.fault}: {ended.err.strip()[-300:]}", state
    hidden = [str(path) for path in out.rglob(".*") if path.is_file() and path.name != ".lock"]
    if hidden:
        return f"left behind: {hidden[:5]}", state
    again = execute(name, kit, out, again=True)
    if again.status != 0:
        return f"again: {again.fault or again.err.strip().splitlines()[-1:]}", state
    return (_compare(contents(out), expected) if ended.status else ""), state


def main() -> int:
    """Interrupt commands at random; the status says whether anything was lost or left."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.interrupt", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interrupt_") as name:
        place = Path(name)
        (place / "kit").mkdir()
        kit = make(place / "kit")
        faults = _series("killed", KILLED, options.kills, options.seed, kit, place)
        faults += _series("disk full", tuple(COMMANDS), options.disks, options.seed, kit, place)
    return int(faults > 0)


def _series(title: str, names: Sequence[str], n: int, seed: int, kit: Kit, place: Path) -> int:
    names = names[:n]
    place = place / title.replace(" ", "_")
    place.mkdir()
    sound = {name: _undisturbed(name, kit, place / f"sound {name}") for name in names}
    table: dict[str, Counter[str]] = {name: Counter() for name in names}
    trials = [(names[i % len(names)], seed + i) for i in range(n)]
    with multiprocessing.get_context("fork").Pool() as pool:
        work = partial(_try, title, sound, kit, place)
        for name, i, fault, state in pool.imap_unordered(work, trials):
            table[name].update([state, *(["faults"] if fault else [])])
            if fault:
                print(f"{title}: {name} {i}: {fault}", flush=True)
    for name, counts in table.items():
        print(f"{title}: {name}: {dict(counts)}")
    return sum(counts["faults"] for counts in table.values())


def _try(
    title: str,
    sound: dict[str, tuple[float, int, dict[str, str]]],
    kit: Kit,
    place: Path,
    trial: tuple[str, int],
) -> tuple[str, int, str, str]:
    name, i = trial
    seconds, largest, expected = sound[name]
    fraction = np.random.default_rng([2, i]).uniform(0, 1.1)
    out = place / f"{i}"
    if title == "killed":
        fault, state = kill(name, kit, out, fraction * seconds, expected)
    else:
        fault, state = fill(name, kit, out, 4096 + int(fraction * largest), expected)
    rmtree(out, ignore_errors=True)
    return name, i, fault, state


def _undisturbed(name: str, kit: Kit, out: Path) -> tuple[float, int, dict[str, str]]:
    """Seconds that a command takes, size of its largest file, and what it writes."""
    out.mkdir()
    start = time.monotonic()
    ended = execute(name, kit, out, limit=600)  # a busy machine
    assert ended.status == 0, ended.err
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return time.monotonic() - start, max(sizes), contents(out)


if __name__ == "__main__":
    sys.exit(main())
