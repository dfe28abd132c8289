"""What embedding the 421 human Visium slides of HEST-1k costs, from a sample of simulated slides.

Eight slides of sizes that are spread over those of the table of HEST are simulated, with the genes of the
default model, and embedded by `embed_many` in one worker. A line through seconds and spots gives the
cost of a slide and of a spot, and with them that of all slides: on one core, and where slides are
handed to the next worker that is free, the largest first or as the table has them. The formula is
compared with six other slides, embedded in one worker and in two.

    python benchmarks/bench_hest.py
"""

import heapq
import json
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
    """Embed all slides of a folder; seconds from one finished slide to the next."""
    import sagefm

    slides = sorted(Path(folder).glob("*.h5ad"))
    sagefm.SageFM.load("default")
    warm = Path(folder) / "warm"
    sagefm.tl.embed_many({warm / "w.h5ad": slides[0]}, "default", reference="slide", workers=1)
    rows, last = [], time.perf_counter()
    start = last

    def progress(line):
        nonlocal last
        now = time.perf_counter()
        rows.append([Path(line.partition(":")[0]).stem, now - last, memory("VmHWM")])
        last = now

    with tempfile.TemporaryDirectory(dir=folder) as out:
        done = sagefm.tl.embed_many(
            {Path(out) / path.name: path for path in slides}, "default", workers=workers,
            reference=None if reference == "chosen" else reference, progress=progress,
        )  # fmt: skip
        assert not done.failed, done.failed
    return {"rows": rows, "seconds": last - start}


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
        f"{spots.max():,}, median {np.median(spots):,.0f}; simulated slides of {len(genes):,} genes, "
        f"{small.X.sum(axis=1).mean():,.0f} counts and {small.X.nnz / small.n_obs:,.0f} genes a spot"
    ]
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        places = {}
        for name, quantiles in (("fitted", FITTED), ("checked", CHECKED)):
            places[name] = Path(folder) / name
            places[name].mkdir()
            for n in np.quantile(spots, quantiles).astype(int):
                make(places[name] / f"{n:06d}.h5ad", int(n), small)

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
        checked = np.array([int(path.stem) for path in sorted(places["checked"].glob("*.h5ad"))])
        cost = per_slide + per_spot * checked
        for workers in (1, 2):
            found = run("checked", workers)["seconds"]
            guess = makespan(cost, workers)
            lines.append(
                f"{len(checked)} other slides, {checked.sum():,} spots, {workers} workers: "
                f"{guess:.1f} s predicted, {found:.1f} s measured ({found / guess:.2f})"
            )
        chosen = run("checked", 1, "chosen")["seconds"]
        lines.append(
            f"the same in one worker, the reference chosen by the data: {chosen:.1f} s "
            f"({chosen / cost.sum():.2f} times as long)"
        )
    every = per_slide + per_spot * spots
    for place, workers in PLACES.items():
        lines.append(
            f"all {len(spots)} slides on {place:<24} {makespan(every, workers) / 60:7.1f} min"
        )
    report("bench_hest", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["embed"]:
        print(json.dumps(embed(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        main()
