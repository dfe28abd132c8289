"""What embedding the 421 human Visium slides of HEST-1k costs, from a sample of simulated slides.

Eight slides of sizes that are spread over those of the table of HEST are simulated, with the genes
of the default model, and embedded by `embed_many` in one worker. A line through seconds of the
processor and spots gives the cost of a slide and of a spot, and with them that of all slides: each
is handed to the next worker that is free, in the order of the table, after the workers have
started. The formula is compared with six other slides, in one worker and in two; where others use
the machine, compare the seconds of the processor, not those of the clock.

    python benchmarks/bench_hest.py
"""

import heapq
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from _common import OUT, SHARED, in_own_process, memory, report

TABLE = SHARED / "hest" / "HEST_v1_1_0.csv"
FITTED = (0.0, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 1.0)
"""Quantiles of the number of spots."""
CHECKED = (0.05, 0.3, 0.5, 0.7, 0.85, 0.95)
PLACES = {"1 core": 1, "2 cores": 2, "a machine with 16 cores": 16, "10 nodes of 16 cores": 160}


def sizes():
    """Spots under tissue of each human Visium slide."""
    import pandas as pd

    table = pd.read_csv(TABLE, encoding="utf-8-sig")
    kept = table[(table["species"] == "Homo sapiens") & (table["st_technology"] == "Visium")]
    return kept["spots_under_tissue"].to_numpy(dtype=int)


def make(path, n_spots, small):
    """Write a slide of copies of a small one."""
    import anndata
    import pandas as pd
    from scipy import sparse

    copies = -(-n_spots // small.n_obs)
    step = np.ptp(small.obsm["spatial"], axis=0) + 300
    places = np.stack(np.divmod(np.arange(copies), int(np.ceil(np.sqrt(copies)))), axis=1)
    coordinates = np.concatenate([small.obsm["spatial"] + place * step for place in places])
    names = pd.Index([f"spot{i}" for i in range(n_spots)])
    counts = sparse.vstack([small.X] * copies, format="csr")[:n_spots]
    slide = anndata.AnnData(
        counts, obs=pd.DataFrame(index=names), var=small.var[[]],
        obsm={"spatial": coordinates[:n_spots]},
    )  # fmt: skip
    slide.write_h5ad(path)


def embed(folder, workers, reference):
    """Embed all slides of a folder; seconds of clock and processor, and from slide to slide."""
    import sagefm

    slides = sorted(Path(folder).glob("*.h5ad"))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        if workers == 1:  # what happens once in a process
            sagefm.tl.embed_many(
                {Path(out) / "warm.h5ad": slides[0]}, "default", reference="slide", workers=1
            )
        rows, start = [], (time.perf_counter(), time.process_time())
        last = start[1]

        def progress(line):
            nonlocal last
            now = time.process_time()
            rows.append([Path(line.partition(":")[0]).stem, now - last, memory("VmHWM")])
            last = now

        done = sagefm.tl.embed_many(
            {Path(out) / path.name: path for path in slides}, "default", workers=workers,
            reference=None if reference == "chosen" else reference, progress=progress,
        )  # fmt: skip
        assert not done.failed, done.failed
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = time.process_time() - start[1] if workers == 1 else (
        children.ru_utime + children.ru_stime
    )  # fmt: skip
    return {"rows": rows, "clock": time.perf_counter() - start[0], "processor": processor}


def makespan(seconds, workers):
    """Time until the last slide is finished, if each goes to the next free worker."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def main():
    import sagefm

    if not TABLE.is_file():
        sys.exit(f"no table of HEST: {TABLE} is missing")
    spots = sizes()
    genes = sagefm.SageFM.load("default").vocabulary.symbols
    small = sagefm.pp.simulate(1_000, genes=genes, seed=0)
    lines = [
        f"{len(spots)} human Visium slides, {spots.sum():,} spots under tissue: {spots.min():,} to "
        f"{spots.max():,}, median {np.median(spots):,.0f}; simulated slides of {len(genes):,} "
        f"genes, {small.X.sum(axis=1).mean():,.0f} counts and {small.X.nnz / small.n_obs:,.0f} "
        "genes a spot"
    ]
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        places = {}
        for name, quantiles in (("fitted", FITTED), ("checked", CHECKED)):
            places[name] = Path(folder) / name
            places[name].mkdir()
            for n in np.quantile(spots, quantiles).astype(int):
                make(places[name] / f"{n:06d}.h5ad", int(n), small)
        places["started"] = Path(folder) / "started"
        places["started"].mkdir()
        for name in "ab":
            make(places["started"] / f"{name}.h5ad", spots.min(), small)

        def run(name, workers, reference="slide"):
            return in_own_process(__file__, "embed", places[name], workers, reference)

        fitted = run("fitted", 1)
        n = np.array([int(row[0]) for row in fitted["rows"]])
        seconds = np.array([row[1] for row in fitted["rows"]])
        per_spot, per_slide = np.polyfit(n, seconds, 1)
        for row in fitted["rows"]:
            guess = per_slide + per_spot * int(row[0])
            lines.append(
                f"{int(row[0]):>6,} spots  {row[1]:6.2f} s (line: {guess:5.2f})  {row[2]:6,.0f} MB"
            )
        lines.append(
            f"a slide costs {per_slide:.2f} s + {1000 * per_spot:.2f} ms a spot "
            f"(r2 {np.corrcoef(n, seconds)[0, 1] ** 2:.3f})"
        )
        small_ones = run("started", 2)
        start = (small_ones["processor"] - 2 * (per_slide + per_spot * n[0])) / 2
        lines.append(
            f"a worker costs {start:.1f} s until it starts on its first slide "
            f"({small_ones['clock']:.1f} s by the clock for two workers with a small slide each)"
        )
        checked = np.array([int(path.stem) for path in sorted(places["checked"].glob("*.h5ad"))])
        cost = per_slide + per_spot * checked
        for workers in (1, 2):
            found = run("checked", workers)
            more = 0 if workers == 1 else start
            guess, clock = cost.sum() + workers * more, makespan(cost, workers) + more
            lines.append(
                f"{len(checked)} other slides, {checked.sum():,} spots, {workers} workers: "
                f"processor {guess:.1f} s predicted, {found['processor']:.1f} s measured "
                f"({found['processor'] / guess:.2f}); clock {clock:.1f} s, {found['clock']:.1f} s"
            )
        chosen = run("checked", 1, "chosen")["processor"]
        lines.append(
            f"the same in one worker, the reference chosen by the data: {chosen:.1f} s "
            f"({chosen / cost.sum():.2f} times the prediction)"
        )
    every = per_slide + per_spot * spots
    for place, workers in PLACES.items():
        minutes = (start + makespan(every, workers)) / 60
        lines.append(f"all {len(spots)} slides on {place:<24} {minutes:7.1f} min")
    report("bench_hest", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["embed"]:
        print(json.dumps(embed(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        main()
