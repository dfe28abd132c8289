"""Embed 1,000 to 1,000,000 simulated spots from disk: in memory, and with the counts left on disk.

Each size and way is a process of its own, from the path of the file to the finished embedding of
the default model. A large slide is made of copies of one simulated slide of 1,000 spots with the
genes of the model, laid side by side, in a zarr as anndata writes it (compressed by zstd).

    python benchmarks/bench_streaming.py [LARGEST]
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from _common import OUT, in_own_process, memory, report

SIZES = (1_000, 10_000, 100_000, 1_000_000)
IN_MEMORY = 100_000
"""Largest size that is read into memory too."""
CHUNK = 1 << 18


def make(path, n_spots):
    """Write a large slide, a copy of the small one at a time."""
    import anndata
    import pandas as pd
    import zarr

    import sagefm

    genes = sagefm.SageFM.load("default").vocabulary.symbols
    small = sagefm.pp.simulate(1_000, genes=genes, seed=0)
    copies = n_spots // 1_000
    places = np.stack(np.divmod(np.arange(copies), int(np.ceil(np.sqrt(copies)))), axis=1)
    step = np.ptp(small.obsm["spatial"], axis=0) + 300
    coordinates = np.concatenate([small.obsm["spatial"] + place * step for place in places])
    names = pd.Index([f"spot{i}" for i in range(n_spots)])
    anndata.AnnData(
        obs=pd.DataFrame(index=names), var=small.var[[]], obsm={"spatial": coordinates}
    ).write_zarr(path)
    root, nnz = zarr.open_group(path, mode="r+"), small.X.nnz
    kind = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
    if "X" in root:
        del root["X"]
    group = root.create_group("X", attributes={**kind, "shape": [n_spots, len(genes)]})
    for name, values in (("data", small.X.data), ("indices", small.X.indices)):
        array = group.create_array(name, shape=(nnz * copies,), chunks=(CHUNK,), dtype=values.dtype)
        for start in range(0, copies, 100):
            some = np.tile(values, min(100, copies - start))
            array[start * nnz : start * nnz + len(some)] = some
    ends = np.concatenate([[0], np.cumsum(np.tile(np.diff(small.X.indptr), copies))])
    group.create_array("indptr", data=ends.astype(np.int64))
    zarr.consolidate_metadata(path)


def embed(way, path):
    import sagefm
    from sagefm.tl.embedding._reference import embed_with

    model = sagefm.SageFM.load("default")
    start = time.perf_counter()
    slide = sagefm.read(path, backed=way == "streamed")
    opened = model.open(slide)
    prepared = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        both = embed_with(model, opened, None, Path(folder) if way == "streamed" else None)
        end = time.perf_counter()
        return {
            "spots": slide.n_obs,
            "open": prepared - start,
            "embed": end - prepared,
            "mb": memory("VmHWM"),
            "check": [float(values[::997].astype(np.float64).sum()) for values in both],
        }


def described(way, row):
    seconds = row["open"] + row["embed"]
    return (
        f"{way:<9} {row['spots']:>9,} spots  open {row['open']:7.2f} s  embed {row['embed']:7.2f} s"
        f"  {row['spots'] / seconds:8,.0f} spots/s  {row['mb']:7,.0f} MB resident"
    )


def measured(rows):
    """Spots, seconds and GB of each row: 3 × rows."""
    return np.array([[r["spots"], r["open"] + r["embed"], r["mb"] / 1024] for r in rows]).T


def slope(rows):
    spots, seconds, _ = np.log(measured(rows))
    return np.polyfit(spots, seconds, 1)[0]


def draw(rows):
    import matplotlib.pyplot as plt

    from sagefm._colors import colors

    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.6), layout="constrained")
    names = {"memory": "in memory", "streamed": "counts on disk"}
    for (way, own), color in zip(rows.items(), colors(2), strict=True):
        spots, *values = measured(own)
        for panel, each in zip(axes, values, strict=True):
            panel.loglog(spots, each, "o-", color=color, ms=4, label=names[way])
    ticks = {"seconds": (1, 10, 100), "GB resident": (0.5, 1, 2, 4, 8)}
    for panel, (label, marks) in zip(axes, ticks.items(), strict=True):
        panel.set(xlabel="spots", ylabel=label, yticks=marks, ylim=(marks[0] / 2, marks[-1]))
        panel.set_yticklabels(map(str, marks))
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(OUT / "bench_streaming.png", dpi=200)


def main(largest):
    OUT.mkdir(exist_ok=True)
    rows = {"memory": [], "streamed": []}
    lines = []
    for size in (size for size in SIZES if size <= largest):
        path = OUT / f"streamed_{size}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        make(path, size)
        for way in ("streamed", "memory") if size <= IN_MEMORY else ("streamed",):
            rows[way].append(in_own_process(__file__, way, path))
            lines.append(described(way, rows[way][-1]))
            print(lines[-1], flush=True)
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        lines.append(f"{'':9} {size:>9,} spots  {stored / 1e9:.2f} GB on disk")
        shutil.rmtree(path)
    both = list(zip(rows["memory"], rows["streamed"], strict=False))
    apart = max(np.abs(np.subtract(a["check"], b["check"])).max() for a, b in both)
    one, other = both[-1]
    ratio = (one["open"] + one["embed"]) / (other["open"] + other["embed"])
    last = rows["streamed"][-1]
    speed = last["spots"] / (last["open"] + last["embed"])
    in_memory = one["spots"] / (one["open"] + one["embed"])
    lines += [
        f"{one['spots']:,} spots: streamed at {ratio:.2f} of the speed in memory, from the file; "
        f"{one['embed'] / other['embed']:.2f} of that of alignment and network alone",
        f"{last['spots']:,} spots streamed: {speed / in_memory:.2f} of the speed of "
        f"{one['spots']:,} in memory",
        f"log-log slope of time from 10,000 spots on, streamed: {slope(rows['streamed'][1:]):.2f}",
        f"sums of every 997th embedding differ by at most {apart:.1e}",
    ]
    draw(rows)
    report("bench_streaming", lines)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(embed(sys.argv[1], sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
