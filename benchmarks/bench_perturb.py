"""Perturb one ligand at 5 levels, and all pairs of a resource, compared with the published way.

    python benchmarks/bench_perturb.py [--screen]

The published way: for every level, change the ligand in the 14 neighbors of every stored subgraph,
mask the targets in the center, and run the network on all of them. Ours: the first layer once, then
a row of weights per level. Both on one slide of 3,639 spots, published widths, random weights. With
--screen also all pairs of liana's consensus resource, with nulls: time and peak memory, also with
the default model (which has seen the slide: times only).
"""

import sys
import time

import numpy as np
import torch

import sagefm
from _common import GENES, SLIDE, Peak, in_own_process, report, require_data
from reference import published
from sagefm.pp import Vocabulary
from sagefm.tl.perturbation._perturber import GeneFacts, Perturber

LIGAND, TARGETS = "TGFB1", ["COL1A1", "TGFBR2", "ACTA2", "SMAD7"]
N_LEVELS = 5
SCREENS = (("published", "nothing"), ("default", "attention"), ("default", "nothing"))


def ready():
    slide = sagefm.read(SLIDE)
    model = sagefm.SageFM.new(Vocabulary.read(GENES), seed=0)
    torch.nn.init.normal_(model.network.decoder.bias, std=0.2, generator=torch.manual_seed(1))
    return slide, model


def ours(model, prepared, facts, ligand, targets):
    screen = Perturber(model.encode(prepared), prepared.log1p.tocsc(), prepared.neighbors, targets)
    return next(screen.means(ligand, facts.levels(ligand[0], N_LEVELS)[None], [targets]))


def published_way(network, graphs, heights, ligand, targets):
    """Run all stored subgraphs once per level, 64 at a time."""
    means = []
    for height in heights:
        total, n = 0, 0
        for start in range(0, len(graphs), 64):
            batch = published.Batch.from_data_list(graphs[start : start + 64])
            k = len(batch.x) // batch.num_graphs
            x = batch.x.clone()
            center = torch.arange(len(x)) % k == 0
            x[~center, ligand] = float(height)
            x[center.nonzero(), torch.from_numpy(targets)] = 0
            with torch.no_grad():
                total += network(x, batch.edge_index)[::k][:, targets].double().sum(dim=0)
            n += batch.num_graphs
        means.append(total / n)
    return torch.stack(means).numpy()


def one_ligand():
    slide, model = ready()
    prepared = model.prepare(slide)
    facts = GeneFacts.of(prepared, prepared.log1p.tocsc())
    ligand, targets = (model.vocabulary.positions(g) for g in ([LIGAND], TARGETS))
    ours(model, prepared, facts, ligand, targets)  # warm
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = ours(model, prepared, facts, ligand, targets)
        times.append(time.perf_counter() - start)
    network = published.of_ours(model.network.state_dict(), model.config.widths)
    # Stored beforehand, as published; a part at a time, for all of them dense take 3 GB.
    heights, seconds, exact = facts.levels(ligand[0], N_LEVELS), 0.0, 0
    parts = np.array_split(prepared.neighbors, 6)
    for part in parts:
        graphs = list(published.subgraphs(prepared.log1p, part))
        start = time.perf_counter()
        exact += published_way(network, graphs, heights, ligand[0], targets) * len(part)
        seconds += time.perf_counter() - start
    error = np.abs(found - exact / len(prepared.neighbors)).max()
    best, middle = min(times), float(np.median(times))
    return [
        f"{LIGAND} at {N_LEVELS} levels, {len(TARGETS)} targets, {slide.n_obs} spots:",
        f"published way {seconds:.1f} s, ours {middle:.2f} s (best of 5: {best:.2f} s): "
        f"{seconds / middle:.0f} times as fast (largest difference of a mean {error:.1e})",
    ]


def screen(name, hold):
    """Perturb all pairs of a resource; runs in a process of its own."""
    import json

    slide, model = ready()
    if name == "default":
        model = sagefm.SageFM.load("default")
    start = time.perf_counter()
    with Peak() as peak:
        table = sagefm.tl.perturb(slide, model, "liana", hold=hold)
    seconds = time.perf_counter() - start
    ligands = table["ligand"].nunique()
    print(json.dumps({"s": seconds, "mb": peak.mb, "pairs": len(table), "ligands": ligands}))


def main():
    require_data()
    rows = one_ligand()
    for name, hold in SCREENS if "--screen" in sys.argv else ():
        found = in_own_process(__file__, "screen", name, hold)
        rows.append(
            f"liana's consensus, {name}, hold={hold}: {found['pairs']:,} pairs that the slide and "
            f"the model have, {found['ligands']} ligands, {N_LEVELS} levels, nulls, the set and "
            f"the slide's evidence: {found['s'] / 60:.1f} minutes, {found['mb']:.0f} MB"
        )
    report("bench_perturb", rows)


if __name__ == "__main__":
    screen(*sys.argv[2:]) if sys.argv[1:2] == ["screen"] else main()
