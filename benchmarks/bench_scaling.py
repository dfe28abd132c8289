"""Embed 1,000 to 100,000 simulated spots: time and memory by number of spots.

The published network and the context network, each at its own size; each number of spots is
embedded in a process of its own, from the counts to the embedding (alignment and neighborhoods
included). A large slide is made of copies of one simulated slide of 1,000 spots, laid side by side,
so that every size has the same spots and genes.

    python benchmarks/bench_scaling.py [LARGEST]
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


def embed(network, n_spots):
    from sagefm.model import Config, SageFM
    from sagefm.nn import Context, Published
    from sagefm.pp.simulate import simulate
    from sagefm.pp.vocabulary import Vocabulary

    slide = side_by_side(simulate(1_000, genes=GENES, seed=0), n_spots // 1_000)
    widths = {"published": Published.PUBLISHED_WIDTHS, "context": Context.DEFAULT_WIDTHS}
    model = SageFM.new(Vocabulary(GENES), Config(network, widths[network]), seed=0)
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

    from sagefm._colors import colors

    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.6), layout="constrained")
    for (network, own), color in zip(rows.items(), colors(2), strict=True):
        spots, seconds, memory = measured(own)
        for panel, values in zip(axes, (seconds, memory / 1024), strict=True):
            panel.loglog(spots, values, "o-", color=color, ms=4, label=network)
            linear = values[-1] * spots / spots[-1]
            panel.loglog(spots, linear, "--", color=color, lw=0.7, alpha=0.6)
    for panel, label in zip(axes, ("seconds", "GB"), strict=True):
        panel.set(xlabel="spots", ylabel=label)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].plot([], [], "--", color="gray", lw=0.7, label="linear")
    axes[0].legend(frameon=False)
    figure.savefig(OUT / "bench_scaling.png", dpi=200)


def measured(rows):
    """Spots, seconds and MB of each row: 3 × rows."""
    return np.array([[r["spots"], r["prepare"] + r["network"], r["mb"]] for r in rows]).T


def main(largest):
    OUT.mkdir(exist_ok=True)
    sizes = [size for size in SIZES if size <= largest]
    rows = {
        network: [in_own_process(__file__, network, size) for size in sizes]
        for network in ("published", "context")
    }
    draw(rows)
    lines = []
    for network, own in rows.items():
        lines.append(f"{network}:")
        lines += [
            f"{row['spots']:>8,} spots {row['nonzeros']:>12,} nonzeros  align and neighborhoods "
            f"{row['prepare']:6.2f} s  network {row['network']:6.2f} s  {row['mb']:7,.0f} MB above "
            f"the inputs ({row['mb'] * 1024 / row['spots']:.1f} kB per spot)"
            for row in own
        ]
        spots, *values = np.log(measured([row for row in own if row["spots"] >= 3_000]))
        slopes = [np.polyfit(spots, each, 1)[0] for each in values]
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
    if sys.argv[1:] == ["million"]:
        print(json.dumps(million()))
    elif len(sys.argv) == 3:
        print(json.dumps(embed(sys.argv[1], int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
