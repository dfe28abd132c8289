"""Run trials at random: ``python -m tests.fuzz --number 10000``."""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import rmtree

import numpy as np

from . import corpora, folders, objects, settings, several, slides
from .damage import Rng
from .kit import Kit, make
from .trials import Trial, Verdict, judge

FAMILIES: dict[str, tuple[int, Callable[[Rng, Kit, Path], Trial]]] = {
    "damaged slide": (6, slides.damaged_bytes),
    "odd slide": (6, slides.odd_structure),
    "damaged zarr": (2, slides.damaged_zarr),
    "odd object": (6, objects.odd_object),
    "several slides": (2, several.merged),
    "damaged folder": (2, folders.damaged_folder),
    "odd matrix": (2, folders.odd_matrix),
    "odd positions": (1, folders.odd_positions),
    "positions of others": (1, folders.written_otherwise),
    "odd factors": (1, folders.odd_factors),
    "damaged model": (2, settings.damaged_model),
    "odd header": (3, settings.odd_header),
    "odd recipe": (1, settings.odd_recipe),
    "odd table": (2, settings.odd_table),
    "damaged corpus": (1, corpora.damaged_corpus),
}
"""Each kind of trial, and how often it is tried."""


def main() -> int:
    """Run trials, print what went wrong and a table; the status says whether anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="of trials")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--show", action="store_true", help="print how every trial ended")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as place:
        kit = make(Path(place, "kit").mkdir() or Path(place, "kit"))
        table = _run_all(options, kit, Path(place))
    print(f"{'':24}{'trials':>8}{'succeeded':>11}{'compared':>10}{'refused':>9}{'faults':>8}")
    for name, counts in [*sorted(table.items()), ("all", sum(table.values(), Counter()))]:
        print(
            f"{name:24}{counts['trials']:8,}{counts['succeeded']:11,}{counts['compared']:10,}"
            f"{counts['refused']:9,}{counts['faults']:8,}"
        )
    print(f"{time.monotonic() - start:,.0f} s")
    return int(any(counts["faults"] for counts in table.values()))


def _run_all(options: argparse.Namespace, kit: Kit, place: Path) -> dict[str, Counter[str]]:
    plan = _plan(options.number, options.seed, options.family or list(FAMILIES))
    table: dict[str, Counter[str]] = {}
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        work = partial(_try, kit, place)
        for name, seed, how, verdict in pool.imap_unordered(work, plan):
            counts = table.setdefault(name, Counter())
            counts.update(_counted(verdict))
            if verdict.fault or options.show:
                last = verdict.ended.err.strip().splitlines()[-1:]
                print(f"{name} {seed}: {verdict.fault or 'fine'} [{how}] {last}", flush=True)
    return table


def _try(kit: Kit, place: Path, planned: tuple[str, int]) -> tuple[str, int, str, Verdict]:
    """Make a trial and run it; the seed alone decides what it is."""
    name, seed = planned
    folder = place / f"{seed}"
    folder.mkdir()
    trial = FAMILIES[name][1](np.random.default_rng([1, seed]), kit, folder)
    verdict = judge(trial)
    rmtree(folder, ignore_errors=True)
    return name, seed, f"{trial.words[0]}: {trial.how}", verdict


def _counted(verdict: Verdict) -> dict[str, int]:
    return {
        "trials": 1,
        "succeeded": verdict.succeeded,
        "compared": verdict.compared,
        "refused": verdict.ended.status == 2,
        "faults": bool(verdict.fault),
    }


def _plan(number: int, seed: int, families: list[str]) -> Iterator[tuple[str, int]]:
    weights = np.array([FAMILIES[name][0] for name in families], dtype=float)
    for i in range(seed, seed + number):
        yield families[np.random.default_rng(i).choice(len(families), p=weights / weights.sum())], i


if __name__ == "__main__":
    sys.exit(main())
