"""Embedding 1,000 to 100,000 simulated spots at published size: time and memory against spots.

Each size is embedded in a process of its own, from the counts to the embedding (alignment and
neighborhoods included). A large slide is made of copies of one simulated slide of 1,000 spots, laid
side by side, so that every size has the same spots and genes.

    python benchmarks/bench_scaling.py
"""

import json
import sys
import time

import numpy as np

from _common import OUT, Peak, in_own_process, report

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
GENES = tuple(f"GENE{i}" for i in range(14_558))


def side_by_side(slide, copies):
    import anndata
    from scipy.sparse import vstack

    across = int(np.ceil(np.sqrt(copies)))
    places = np.stack(np.divmod(np.arange(copies), across), axis=1)
    step = np.ptp(slide.obsm["spatial"], axis=0) + 300
    coordinates = np.concatenate([slide.obsm["spatial"] + place * step for place in places])
    counts = vstack([slide.X] * copies, format="csr")
    large = anndata.AnnData(counts, obsm={"spatial": coordinates})
    large.var_names = slide.var_names
    return large


def embed(n_spots):
    from sagefm.model import SageFM
    from sagefm.pp.simulate import simulate
    from sagefm.pp.vocabulary import Vocabulary

    slide = side_by_side(simulate(1_000, genes=GENES, seed=0), n_spots // 1_000)
    model = SageFM.new(Vocabulary(GENES), seed=0)
    model.embed(slide[:100].copy())
    with Peak() as peak:
        start = time.perf_counter()
        prepared = model.prepare(slide)
        middle = time.perf_counter()
        model.embed(prepared)
        end = time.perf_counter()
    return {
        "spots": n_spots,
        "nonzeros": int(slide.X.nnz),
        "prepare": middle - start,
        "network": end - middle,
        "mb": peak.mb,
    }


def million():
    """Find the neighborhoods of an ideal hexagonal grid of 1,000,000 spots."""
    from sagefm.pp.neighborhood import nearest

    row, column = np.divmod(np.arange(1_000_000), 1_000)
    grid = np.stack([column + row % 2 / 2, row * np.sqrt(3) / 2], axis=1) * 137.0
    with Peak() as peak:
        start = time.perf_counter()
        nearest(grid)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "mb": peak.mb}


def draw(rows):
    import matplotlib.pyplot as plt

    spots = np.array([row["spots"] for row in rows])
    seconds = np.array([row["prepare"] + row["network"] for row in rows])
    memory = np.array([row["mb"] for row in rows]) / 1024
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.6), layout="constrained")
    for panel, values, label in zip(axes, (seconds, memory), ("seconds", "GB"), strict=True):
        panel.loglog(spots, values, "o-", color="#0072B2", ms=4, label="measured")
        panel.loglog(spots, values[-1] * spots / spots[-1], "--", color="#999999", label="linear")
        panel.set(xlabel="spots", ylabel=label)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    figure.savefig(OUT / "bench_scaling.png", dpi=200)


def main():
    OUT.mkdir(exist_ok=True)
    rows = [in_own_process(__file__, size) for size in SIZES]
    draw(rows)
    large = [row for row in rows if row["spots"] >= 3_000]
    logs = np.log([[r["spots"], r["prepare"] + r["network"], r["mb"]] for r in large])
    slopes = [np.polyfit(logs[:, 0], logs[:, i], 1)[0] for i in (1, 2)]
    lines = [
        f"{row['spots']:>8,} spots {row['nonzeros']:>12,} nonzeros  align and neighborhoods "
        f"{row['prepare']:6.2f} s  network {row['network']:6.2f} s  {row['mb']:7,.0f} MB above the "
        f"inputs ({row['mb'] * 1024 / row['spots']:.1f} kB per spot)"
        for row in rows
    ]
    lines.append(
        f"log-log slope from 3,000 spots on: time {slopes[0]:.2f}, memory {slopes[1]:.2f} "
        "(1 is linear)"
    )
    grid = in_own_process(__file__, "million")
    lines.append(
        f"the 15 nearest of 1,000,000 spots of a hexagonal grid: {grid['seconds']:.1f} s, "
        f"{grid['mb']:,.0f} MB"
    )
    report("bench_scaling", lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(million() if sys.argv[1] == "million" else embed(int(sys.argv[1]))))
    else:
        main()
