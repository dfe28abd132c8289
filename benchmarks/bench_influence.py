"""Compute the genome-wide influences of one slide: automatic differentiation compared with ours.

Ours is timed as a whole: all spots, all genes of the slide, the 500 strongest edges.
The published network has no such step; a user would write a vector-Jacobian product per predicted
gene, through the published network on its subgraphs or through ours on pooled inputs. Both are
timed for a few genes (the former also for a few spots) and extrapolated: they would take days and
hours. All sides get the same weights, and their derivatives are compared.

    python benchmarks/bench_influence.py
"""

import json
import sys
import time

import numpy as np

from _common import GENES, OUT, SLIDE, Peak, in_own_process, report, require_data
from bench_embed import inputs

TARGETS = [3, 400, 8001]
SPOTS = 128
"""Spots that the published network is timed on."""
HARD_SPOTS = 512
"""Spots that the hardest case is timed on."""


def ours():
    import sagefm

    model, _ = inputs()
    slide = sagefm.read(SLIDE)
    with Peak() as peak:
        start = time.perf_counter()
        edges = sagefm.tl.influence(slide, model)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "mb": peak.mb,
        "edges": len(edges),
        "targets": int(edges["target"].nunique()),
    }


def parts():
    """Where the time goes, what the hardest case takes, and what automatic differentiation does."""
    import torch

    from sagefm.nn.published.gradient import mean_gradient

    model, prepared = inputs()
    network = model.network
    with torch.no_grad():
        pool = model.encode(prepared).centers(prepared.neighbors).pooled
    every = torch.arange(len(network.first))
    with torch.no_grad():
        before = torch.cat([network.decoder(network.embed(part)) for part in pool.split(512)])
    share = (before > 0).float().mean(dim=0)
    rare = float(torch.minimum(share, 1 - share).mean())

    start = time.perf_counter()
    gradient = mean_gradient(network, pool, every)
    seconds = time.perf_counter() - start
    np.save(OUT / "influence.npy", mean_gradient(network, pool[:SPOTS], every)[TARGETS])

    leaf = pool.clone().requires_grad_()
    begun = time.perf_counter()
    for target in TARGETS:
        predicted = network.decode(network.embed(leaf), torch.tensor([target]))
        (found,) = torch.autograd.grad(predicted.sum(), leaf)
        difference = (found.mean(dim=0) - gradient[target]).abs().max() / gradient.abs().max()
    per_target = (time.perf_counter() - begun) / len(TARGETS)

    # Every gene above zero in exactly half of the spots: no case is slower.
    some = slice(0, HARD_SPOTS)
    with torch.no_grad():
        network.decoder.bias -= before[some].median(dim=0).values
    del before
    start = time.perf_counter()
    mean_gradient(network, pool[some], every)
    hard = (time.perf_counter() - start) * len(pool) / HARD_SPOTS
    return {
        "seconds": seconds, "rare": rare, "hard": hard, "autograd": per_target * len(every),
        "difference": float(difference),
    }  # fmt: skip


def published():
    """Time a vector-Jacobian product per gene through the published network, on some spots."""
    import torch

    from reference import published as oracle

    model, prepared = inputs()
    network = oracle.of_ours(model.network.state_dict())
    first = model.network.first.detach()
    del model
    found = np.zeros((len(TARGETS), first.shape[0]))
    with Peak() as peak:
        start = time.perf_counter()
        for begin in range(0, SPOTS, 64):
            rows = prepared.neighbors[begin : begin + 64]
            (batch,) = oracle.batches(oracle.subgraphs(prepared.log1p, rows))
            batch.x.requires_grad_()
            predicted = network(batch.x, batch.edge_index)[::15]
            for i, target in enumerate(TARGETS):
                kept = i + 1 < len(TARGETS)
                sums = predicted[:, target].sum()
                (gradient,) = torch.autograd.grad(sums, batch.x, retain_graph=kept)
                found[i] += gradient[::15].sum(dim=0).numpy()
        seconds = time.perf_counter() - start
    mine = torch.from_numpy(np.load(OUT / "influence.npy")) @ first.T / 15
    difference = np.abs(found / SPOTS - mine.numpy()).max() / float(mine.abs().max())
    n_spots, n_genes = prepared.log1p.shape
    scale = n_spots / SPOTS * n_genes / len(TARGETS)
    return {"seconds": seconds * scale, "mb": peak.mb, "difference": float(difference)}


def main():
    require_data()
    OUT.mkdir(exist_ok=True)
    whole = in_own_process(__file__, "ours")
    pieces = in_own_process(__file__, "parts")
    slow = in_own_process(__file__, "published")
    report(
        "bench_influence",
        [
            f"{SLIDE.name}: 3,639 spots, {len(GENES.read_text().split()):,} predicted genes, "
            "published widths, random weights",
            f"published way  {slow['seconds'] / 86400:8.1f} days, {slow['mb']:,.0f} MB "
            f"(extrapolated from {len(TARGETS)} genes and {SPOTS} spots)",
            f"autograd, ours {pieces['autograd'] / 3600:8.2f} hours "
            f"(extrapolated from {len(TARGETS)} genes, all spots)",
            f"sagefm         {whole['seconds'] / 60:8.2f} minutes, {whole['mb']:,.0f} MB above its "
            f"inputs, whole: {whole['edges']:,} edges on {whole['targets']:,} genes",
            f"ratio          {slow['seconds'] / whole['seconds']:8,.0f} x in time "
            f"({pieces['autograd'] / whole['seconds']:.0f} x of autograd on pooled inputs), memory "
            f"{whole['mb'] / slow['mb']:.2f} of the published",
            f"derivatives    {pieces['seconds']:8.0f} s alone, again; a gene differs from what it "
            f"does in most spots in {100 * pieces['rare']:.1f} % of them",
            f"hardest case   derivatives {pieces['hard'] / 60:.1f} minutes, every gene differs in "
            f"half of the spots (extrapolated from {HARD_SPOTS} spots)",
            f"largest difference of the derivatives, of their largest: {slow['difference']:.1e} "
            f"from the published way, {pieces['difference']:.1e} from autograd",
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sides = {"ours": ours, "parts": parts, "published": published}
        print(json.dumps(sides[sys.argv[1]]()))
    else:
        main()
