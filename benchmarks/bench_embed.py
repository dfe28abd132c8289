"""Embed one slide: the published way compared with ours, from the aligned matrix to the embedding.

The published way is a Python loop that builds one dense subgraph per spot, then batches of 64
through a graph library. Both sides get the same weights, the same log1p counts and the same
neighborhoods, each in a process of its own, and the results are compared. The context network is
timed as well, at its default size with random weights, against the published way; and predictions
of all genes and of 1,400 genes that are masked in the centers, which takes most of the time and
can be left out.

    python benchmarks/bench_embed.py [--embedding] [--processor-time]
"""

import json
import sys

import numpy as np

from _common import GENES, OUT, SLIDE, Peak, clock, in_own_process, report, require_data

REPEATS, PREDICTIONS = 10, 3
HIDDEN = 1_400
EMBEDDING = "--embedding"


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
        start = clock()
        # Batch after batch: to hold all subgraphs at once, as published, would take 12 GB.
        for first in range(0, len(prepared.neighbors), 64):
            built = clock()
            graphs = oracle.subgraphs(prepared.log1p, prepared.neighbors[first : first + 64])
            (batch,) = oracle.batches(graphs)
            seconds_of_building += clock() - built
            embedding.append(network.embed(batch.x, batch.edge_index)[::15].numpy())
        seconds = clock() - start
    np.save(OUT / "published.npy", np.concatenate(embedding))
    return {"seconds": seconds, "building": seconds_of_building, "mb": peak.mb}


def seconds_of(task, repeats):
    times = []
    for _ in range(repeats):
        start = clock()
        task()
        times.append(clock() - start)
    return times


def embedding_of(model, prepared, file):
    """Measure the first embedding, which goes to a file, and later ones."""
    with Peak() as peak:
        start = clock()
        embedding = model.embed(prepared)
        first = clock() - start
    np.save(file, embedding)
    times = seconds_of(lambda: model.embed(prepared), REPEATS)
    return {"first": first, "times": times, "mb": peak.mb}


def predictions_of(model, prepared):
    """Median seconds of predicting all genes, and some that are hidden in all centers."""
    if EMBEDDING in sys.argv:
        return {}
    chosen = np.random.default_rng(0).choice(len(model.vocabulary), HIDDEN, replace=False)
    hidden = np.zeros(prepared.log1p.shape, dtype=bool)
    hidden[:, chosen] = True
    genes = [model.vocabulary[i] for i in chosen]
    tasks = {
        "all": lambda: model.predict(prepared),
        "hidden": lambda: model.predict(prepared, hidden=hidden, genes=genes),
    }
    return {name: float(np.median(seconds_of(task, PREDICTIONS))) for name, task in tasks.items()}


def fast():
    model, prepared = inputs()
    found = embedding_of(model, prepared, OUT / "ours.npy")
    parts = parts_of(model, prepared)
    return found | {"parts": parts, "predictions": predictions_of(model, prepared)}


def context():
    import sagefm
    from sagefm.model import Config, SageFM
    from sagefm.nn import Context
    from sagefm.pp.vocabulary import Vocabulary

    model = SageFM.new(Vocabulary.read(GENES), Config("context", Context.DEFAULT_WIDTHS), seed=0)
    prepared = model.prepare(sagefm.read(SLIDE))
    found = embedding_of(model, prepared, OUT / "context.npy")
    return found | {"predictions": predictions_of(model, prepared)}


def parts_of(model, prepared):
    """Where the time goes: median seconds of the sparse product, the mean and the dense layers."""
    import torch

    from sagefm.nn import SparseRows

    network, neighbors = model.network, torch.from_numpy(prepared.neighbors)
    rows = SparseRows.from_scipy(prepared.log1p)
    seconds = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            marks = [clock()]
            projected = network.project(rows)
            marks.append(clock())
            pooled = network.pool(projected, neighbors)
            marks.append(clock())
            network.embed(pooled)
            marks.append(clock())
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
    # The machine may change its pace meanwhile.
    sides = ("fast", "context", "published", "context", "fast")
    before, before_context, slow, after_context, after = (
        in_own_process(__file__, side, *sys.argv[1:]) for side in sides
    )
    times, first, mb = joined(before, after)
    median = np.median(times)
    difference = np.abs(np.load(OUT / "published.npy") - np.load(OUT / "ours.npy")).max()
    lines = [
        f"{SLIDE.name}: 3,639 spots, 14,558 genes, published widths",
        f"published way  {slow['seconds']:8.2f} s (building {slow['building']:.2f} s), "
        f"{slow['mb']:,.0f} MB above its inputs",
        f"sagefm         {line_of(times, first, mb)}",
        f"ratio          {slow['seconds'] / median:8.0f} x in time "
        f"({slow['seconds'] / first:.0f} x on the first call), "
        f"memory {mb / slow['mb']:.2f} of the published",
        f"of it          {after['parts']}",
        f"largest difference of the embeddings {difference:.1e}",
    ]
    theirs = joined(before_context, after_context)
    of_context = np.median(theirs[0])
    lines += [
        f"context        {line_of(*theirs)}",
        f"ratio          {slow['seconds'] / of_context:8.0f} x in time of the published way "
        f"({slow['seconds'] / theirs[1]:.0f} x on the first call), memory "
        f"{theirs[2] / slow['mb']:.2f} of it",
        f"               {median / of_context:8.1f} x in time of the published network by sagefm, "
        f"memory {theirs[2] / mb:.2f} of it",
    ]
    for task in before["predictions"]:
        name = "all genes" if task == "all" else f"{HIDDEN:,} hidden genes"
        one, other = (
            np.mean([side["predictions"][task] for side in both])
            for both in ((before, after), (before_context, after_context))
        )
        lines.append(
            f"predicting {name}: published network {one:.2f} s, context {other:.2f} s "
            f"({other / one:.2f} of it)"
        )
    report("bench_embed", lines)


def joined(before, after):
    """Join two turns: all times, the slower first call, the larger memory."""
    highest = (max(before[key], after[key]) for key in ("first", "mb"))
    return before["times"] + after["times"], *highest


def line_of(times, first, mb):
    return (
        f"{np.median(times):8.3f} s (median of {len(times)}; {min(times):.3f} to "
        f"{max(times):.3f}, first call {first:.3f}), {mb:,.0f} MB"
    )


if __name__ == "__main__":
    sides = {"published": published, "fast": fast, "context": context}
    if len(sys.argv) > 1 and sys.argv[1] in sides:
        print(json.dumps(sides[sys.argv[1]]()))
    else:
        main()
