"""Training at published sizes: the published way against ours, step by step in one process.

Both begin with the same weights and get the same batches and masks. The published way builds one
dense subgraph per spot, runs batches of 64 through a graph library and steps with Adam; ours is
`sagefm pretrain`. Blocks of steps alternate, so that a change of the machine's pace meets both.

    python benchmarks/bench_training.py [STEPS] [--device cuda]
"""

import sys
import time

import numpy as np

from _common import GENES, OUT, SHARED, report, require_data

SLIDES = "her2st_[C-F]*.h5ad"
BLOCK = 20
"""Steps of the published way before ours catches up."""


class Published:
    """The published step."""

    def __init__(self, state, source, device):
        import torch

        from reference import published

        self.oracle, self.source, self.device = published, source, device
        self.network = published.of_ours(state).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=5e-5, weight_decay=1e-4)

    def step(self, patches, masks):
        """Build the subgraphs of a batch, and learn from them; give the loss."""
        import torch

        hidden, graphs, truth, at = masks.dense().numpy(), [], [], 0
        for stretch, spots in patches:
            region = self.source.read(*stretch)
            neighbors = region.neighbors[spots]
            part = hidden[at : at + len(spots)]
            graphs += self.oracle.subgraphs(region.expression, neighbors, part)
            truth.append(region.expression[neighbors[:, 0]].toarray())
            at += len(spots)
        (batch,) = self.oracle.batches(graphs, size=len(graphs))
        batch = batch.to(self.device)
        truth = torch.from_numpy(np.concatenate(truth)).to(self.device)
        mask = torch.from_numpy(hidden).to(self.device)
        self.optimizer.zero_grad()
        predicted = self.network(batch.x, batch.edge_index)[::15]
        loss = ((predicted - truth)[mask] ** 2).mean()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Ours:
    """The step of ``sagefm pretrain``, with the time of its parts."""

    PARTS = (
        "waiting for the batch",
        "first layer",
        "encoder",
        "decoder and loss",
        "backward",
        "Adam",
    )

    def __init__(self, network, batches, settings, device, precision):
        import torch

        from sagefm.pretrain.module import Pretraining

        self.module = Pretraining(network.to(device), settings).train()
        self.optimizer = self.module.configure_optimizers()
        self.batches, self.device = iter(batches), device
        self.half = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
        self.parts = []

    def step(self):
        """Take the next batch, and learn from it; give the loss."""
        marks = [self._now()]
        batch = moved(next(self.batches), self.device)
        marks.append(self._now())
        network = self.module.network
        self.optimizer.zero_grad()
        with self.half:
            pooled = network.mix(batch.rows, batch.operators)
            marks.append(self._now())
            embedding = network.embed(pooled)
            marks.append(self._now())
            loss = network.error(embedding, batch.truth, batch.masks, 1 / batch.n_hidden)
            marks.append(self._now())
        loss.backward()
        marks.append(self._now())
        self.optimizer.step()
        marks.append(self._now())
        self.parts.append(np.diff(marks))
        return float(loss.detach())

    def summary(self):
        """Say in milliseconds where the time of a step goes."""
        times = 1e3 * np.median(self.parts[2:], axis=0)
        return ", ".join(f"{part} {t:.1f}" for part, t in zip(self.PARTS, times, strict=True))

    def _now(self):
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def moved(batch, device):
    from lightning.fabric.utilities import move_data_to_device

    return batch if device == "cpu" else move_data_to_device(batch, device)


def prepared(batch_size, patch):
    """Give the split of a few slides, their plan and the recipe."""
    import sagefm
    from sagefm.pretrain import Recipe
    from sagefm.pretrain.data import of_memory
    from sagefm.pretrain.pieces import pieces_of

    recipe = Recipe.load(
        "published",
        [f"data.genes='{GENES}'", f"train.batch_size={batch_size}", f"data.patch={patch}"],
    )
    paths = sorted((SHARED / "slides").glob(SLIDES))
    slides = {path.stem: sagefm.read(path) for path in paths}
    split = of_memory(slides, pieces_of(slides), recipe)
    return split, recipe


def fresh(split):
    from sagefm.model import SageFM
    from sagefm.pretrain.data import gene_mean_of

    model = SageFM.new(split.source.vocabulary, seed=0)
    model.network.start_from(gene_mean_of(split))
    return model.network


def batches_of(split, recipe, epochs=40):
    """Chain the batches of many epochs."""
    from sagefm.pretrain.batches import Batches

    plan = split.plan(split.training, recipe)
    for epoch in range(epochs):
        patches = plan.shuffled(recipe.train.seed, epoch)
        batches = Batches(split.source, patches, (recipe.train.seed, 0, epoch), 0.3)
        yield from zip(patches, batches, strict=True)


def race(steps, device):
    """Run both, in turns; give losses and seconds of each, and ours."""
    import torch

    from sagefm.pretrain.loop import keeping_memory

    split, recipe = prepared(64, 16)
    network = fresh(split)
    theirs = Published(network.state_dict(), split.source, device)
    to_them = batches_of(split, recipe)
    to_us = (batch for _, batch in batches_of(split, recipe))
    ours = Ours(network, to_us, recipe.train, device, "float32")
    losses, seconds = ([], []), ([], [])
    for start in range(0, steps, BLOCK):
        for _ in range(min(BLOCK, steps - start)):
            patches, batch = next(to_them)
            begin = time.perf_counter()
            losses[0].append(theirs.step(patches, batch.masks))
            seconds[0].append(time.perf_counter() - begin)
        with keeping_memory(torch.device(device)):
            for _ in range(min(BLOCK, steps - start)):
                begin = time.perf_counter()
                losses[1].append(ours.step())
                seconds[1].append(time.perf_counter() - begin)
    spots = split.source.table["spots"]
    depth = sum(split.source.detected(slide).sum() for slide in spots.index) / spots.sum()
    return np.array(losses), np.array(seconds), ours.summary(), depth


def alone(batch_size, patch, precision, device, steps=60):
    """Run ours alone; give spots/s and where the time goes."""
    import torch

    from sagefm.pretrain.loop import keeping_memory

    split, recipe = prepared(batch_size, patch)
    to_us = (batch for _, batch in batches_of(split, recipe))
    ours = Ours(fresh(split), to_us, recipe.train, device, precision)
    with keeping_memory(torch.device(device)):
        for _ in range(steps):
            ours.step()
    return batch_size / np.median(np.sum(ours.parts, axis=1)), ours.summary()


def dense_pace(device):
    """Measure how many operations a second large dense products get: the limit of the machine."""
    import torch

    a = torch.rand(4096, 4096, device=device)
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        seconds.append(time.perf_counter() - begin)
    return 2 * 4096**3 / np.median(seconds)


def draw(losses):
    import matplotlib.pyplot as plt

    from sagefm.pl._style import COLUMN, colors, journal

    shades = colors(4)
    with journal():
        figure, ax = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
        spots = 64 * np.arange(1, losses.shape[1] + 1)
        ax.plot(spots, losses[0], color=shades[1], lw=2.5, label="published way")
        ax.plot(spots, losses[1], color=shades[0], lw=0.9, label="sagefm")
        ax.set(xlabel="spots seen", ylabel="error of hidden genes\n(mean squared, log1p counts)")
        ax.legend(frameon=False)
        figure.savefig(OUT / "training_race.png", dpi=200)


def main():
    import torch

    require_data()
    OUT.mkdir(exist_ok=True)
    device = "cuda" if "cuda" in sys.argv[1:] else "cpu"
    steps = next((int(word) for word in sys.argv[1:] if word.isdigit()), 100)
    losses, seconds, parts, depth = race(steps, device)
    np.savetxt(OUT / "training_race.csv", losses.T, delimiter=",", header="published,sagefm")
    draw(losses)
    slow, fast = (64 / np.median(each[2:]) for each in seconds)
    pace = dense_pace(device)
    lines = [
        f"{SLIDES}: {depth:,.0f} genes per spot; 14,558 genes, published widths, {device}",
        f"published way, batch 64        {slow:8.0f} spots/s",
        f"sagefm, batch 64               {fast:8.0f} spots/s, {fast / slow:5.1f} x; {parts}",
        f"loss after {64 * steps:,} spots: published {losses[0, -10:].mean():.5f}, sagefm "
        f"{losses[1, -10:].mean():.5f} (last 10 batches); largest difference of a batch "
        f"{np.abs(losses[0] - losses[1]).max():.1e}",
    ]
    for batch_size, patch, precision in (
        (256, 64, "float32"),
        (64, 16, "bfloat16"),
        (256, 64, "bfloat16"),
    ):
        rate, parts = alone(batch_size, patch, precision, device)
        lines.append(
            f"sagefm, batch {batch_size}, {precision:<10}{rate:8.0f} spots/s, "
            f"{rate / slow:5.1f} x; {parts}"
        )
    needed = 6 * 1.57e6 + 2 * 14558 * 1024 * (2 + 3 * 0.3)
    lines += [
        f"dense products run at {pace / 1e9:.0f} GFLOP/s here; the task needs "
        f"{needed / 1e6:.0f} MFLOP a spot (first layer twice, encoder and 30 % of the decoder "
        f"three times), so at most {pace / needed:.0f} spots/s in float32",
    ]
    if not torch.cuda.is_available():
        lines.append("no CUDA device here: nothing measured on one")
    report("bench_training", lines)


if __name__ == "__main__":
    main()
