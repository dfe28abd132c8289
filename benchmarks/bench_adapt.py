"""Adapt the shipped model to a slide: seconds and memory, beside those of embedding it.

A simulated slide of so many spots (4,000 if not given) with all genes of the model; each side runs
in a process of its own.

    python benchmarks/bench_adapt.py [SPOTS]
"""

import json
import sys
import time

import numpy as np
from scipy.sparse import random as random_matrix

from _common import Peak, in_own_process, report

N_SPOTS, DENSITY = 4_000, 0.18
"""Of the genes, a spot of a Visium slide shows some 2,600."""


def inputs(n_spots):
    from sagefm import SageFM
    from sagefm.pp.aligned import AlignedSlide
    from sagefm.pp.neighborhood import nearest

    model, rng = SageFM.load("default", device="cpu"), np.random.default_rng(0)
    shape = n_spots, len(model.vocabulary)
    counts = random_matrix(*shape, DENSITY, "csr", np.float32, rng, lambda n: rng.poisson(1.0, n))
    counts.data = np.rint(counts.data + 1).astype(np.float32)
    width = int(n_spots**0.5)
    points = np.stack([np.arange(n_spots) // width, np.arange(n_spots) % width], axis=1)
    neighbors = nearest(points.astype(float), 15)
    return model, AlignedSlide.of_counts(counts, neighbors, np.ones(shape[1], dtype=bool))


def side(name, n_spots):
    from sagefm.nn import cross_fit

    model, slide = inputs(n_spots)
    tasks = {
        "embed": lambda: model.embed(slide),
        "cross_fit": lambda: cross_fit(model.network, slide, 0),
        "adapt": lambda: model.adapt(slide),
    }
    with Peak() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        tasks[name]()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "mb": peak.mb}


def main():
    n_spots = int(sys.argv[1]) if len(sys.argv) > 1 else N_SPOTS
    found = {
        name: in_own_process(__file__, name, str(n_spots))
        for name in ("embed", "cross_fit", "adapt")
    }
    embedding = found["embed"]
    lines = [f"{n_spots:,} spots, all genes of the shipped model, density {DENSITY}"]
    for name, one in found.items():
        lines.append(
            f"{name:<10} {one['seconds']:7.1f} s (CPU {one['cpu']:.1f} s), {one['mb']:,.0f} MB: "
            f"{one['seconds'] / embedding['seconds']:.1f} x the time and "
            f"{one['mb'] / embedding['mb']:.2f} x the memory of embedding"
        )
    report("bench_adapt", lines)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(side(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
