"""Embedding one slide: the published way against ours, from the aligned matrix to the embedding.

The published way is a Python loop that builds one dense subgraph per spot, then batches of 64
through a graph library. Both sides get the same weights, the same log1p counts and the same
neighborhoods, each in a process of its own; the results are compared.

    python benchmarks/bench_embed.py
"""

import json
import sys
import time

import numpy as np

from _common import GENES, OUT, SLIDE, Peak, in_own_process, report, require_data

REPEATS = 10


def inputs():
    import torch

    import sagefm
    from sagefm.model import SageFM
    from sagefm.pp.vocabulary import Vocabulary

    model = SageFM.new(Vocabulary.read(GENES), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model, model.prepare(sagefm.read(SLIDE))


def published():
    import torch

    from reference import published as oracle

    model, prepared = inputs()
    network = oracle.of_ours(model.network.state_dict())
    del model

    embedding, seconds_of_building = [], 0.0
    with Peak() as peak, torch.no_grad():
        start = time.perf_counter()
        # Batch after batch: to hold all subgraphs at once, as published, would take 12 GB.
        for first in range(0, len(prepared.neighbors), 64):
            built = time.perf_counter()
            graphs = oracle.subgraphs(prepared.expression, prepared.neighbors[first : first + 64])
            (batch,) = oracle.batches(graphs)
            seconds_of_building += time.perf_counter() - built
            embedding.append(network.embed(batch.x, batch.edge_index)[::15].numpy())
        seconds = time.perf_counter() - start
    np.save(OUT / "published.npy", np.concatenate(embedding))
    return {"seconds": seconds, "building": seconds_of_building, "mb": peak.mb}


def fast():
    model, prepared = inputs()
    with Peak() as peak:
        start = time.perf_counter()
        embedding = model.embed(prepared)
        first = time.perf_counter() - start
    np.save(OUT / "ours.npy", embedding)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        model.embed(prepared)
        times.append(time.perf_counter() - start)
    return {"first": first, "times": times, "mb": peak.mb, "parts": parts_of(model, prepared)}


def parts_of(model, prepared):
    """Where the time goes: median seconds of the sparse product, the mean and the dense layers."""
    import torch

    from sagefm.nn import SparseRows

    network, neighbors = model.network, torch.from_numpy(prepared.neighbors)
    rows = SparseRows.from_scipy(prepared.expression)
    seconds = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            marks = [time.perf_counter()]
            projected = network.project(rows)
            marks.append(time.perf_counter())
            pooled = network.pool(projected, neighbors)
            marks.append(time.perf_counter())
            network.embed(pooled)
            marks.append(time.perf_counter())
            seconds.append(np.diff(marks))
    sparse, mean, dense = np.median(seconds, axis=0)
    dense_flop = 2 * len(neighbors) * sum(layer.weight.numel() for layer in network.encoder)
    sparse_flop = 2 * len(rows.values) * network.first.shape[1]
    return (
        f"sparse product {sparse:.3f} s ({sparse_flop / sparse / 1e9:.0f} GFLOP/s), mean "
        f"{mean:.3f} s, dense layers {dense:.3f} s ({dense_flop / dense / 1e9:.0f} GFLOP/s)"
    )


def main():
    require_data()
    OUT.mkdir(exist_ok=True)
    before = in_own_process(__file__, "fast")
    slow = in_own_process(__file__, "published")
    after = in_own_process(__file__, "fast")  # the machine may have changed its pace meanwhile
    times = before["times"] + after["times"]
    median, first = np.median(times), max(before["first"], after["first"])
    mb = max(before["mb"], after["mb"])
    difference = np.abs(np.load(OUT / "published.npy") - np.load(OUT / "ours.npy")).max()
    report(
        "bench_embed",
        [
            f"{SLIDE.name}: 3,639 spots, 14,558 genes, published widths",
            f"published way  {slow['seconds']:8.2f} s (building {slow['building']:.2f} s), "
            f"{slow['mb']:,.0f} MB above its inputs",
            f"sagefm         {median:8.3f} s (median of {len(times)}; {min(times):.3f} to "
            f"{max(times):.3f}, first call {first:.3f}), {mb:,.0f} MB",
            f"ratio          {slow['seconds'] / median:8.0f} x in time "
            f"({slow['seconds'] / first:.0f} x on the first call), "
            f"memory {mb / slow['mb']:.2f} of the published",
            f"of it          {after['parts']}",
            f"largest difference of the embeddings {difference:.1e}",
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"published": published, "fast": fast}[sys.argv[1]]()))
    else:
        main()
