"""Train at published sizes: the published way compared with ours, step by step in one process.

Both start from the same weights and get the same batches and masks. The published way builds one
dense subgraph per spot, runs batches of 64 through a graph library and steps with Adam; ours is
`sagefm pretrain`. Blocks of steps alternate, so that changes in the speed of the machine affect
both.

    python benchmarks/bench_training.py [STEPS] [--device cuda] [--processor-time]
"""

import sys

import numpy as np

from _common import GENES, OUT, SHARED, clock, report, require_data

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
            graphs += self.oracle.subgraphs(region.log1p, neighbors, part)
            truth.append(region.log1p[neighbors[:, 0]].toarray())
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

        self.network = network.to(device).train()
        self.optimizer = network.optimizer(settings.learning_rate, settings.weight_decay)
        self.batches, self.device = iter(batches), device
        self.half = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
        self.parts = []

    def step(self):
        """Take the next batch, and learn from it; give the loss."""
        marks = [self._now()]
        batch = moved(next(self.batches), self.device)
        marks.append(self._now())
        network = self.network
        self.optimizer.zero_grad()
        with self.half:
            pooled = network.mix(batch.rows, batch.operators)
            marks.append(self._now())
            embedding = network.embed(pooled)
            marks.append(self._now())
            loss = network.error(embedding, batch.truth, batch.masks, 1 / batch.n_masked)
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
        return clock()


def moved(batch, device):
    from lightning_fabric.utilities import move_data_to_device

    return batch if device == "cpu" else move_data_to_device(batch, device)


def prepared(batch_size, patch):
    """Give the split of a few slides, their plan and the recipe."""
    import sagefm
    from sagefm.pp.sections import sections_of
    from sagefm.pretrain import Recipe
    from sagefm.pretrain.data import of_memory

    recipe = Recipe.load(
        "published",
        [f"data.genes='{GENES}'", f"train.batch_size={batch_size}", f"data.patch={patch}"],
    )
    paths = sorted((SHARED / "slides").glob(SLIDES))
    slides = {path.stem: sagefm.read(path) for path in paths}
    split = of_memory(slides, sections_of(slides), recipe)
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
    from sagefm.pretrain.published import PublishedTask

    plan = split.plan(split.training, recipe)
    for epoch in range(epochs):
        patches = plan.shuffled(recipe.train.seed, epoch)
        batches = Batches(split.source, patches, (recipe.train.seed, 0, epoch), PublishedTask(0.3))
        yield from zip(patches, batches, strict=True)


def race(steps, device):
    """Run the published way and ours, in float32 and bfloat16, in turns on the same batches."""
    import torch

    from sagefm.pretrain.devices import keeping_memory

    split, recipe = prepared(64, 16)
    networks = [fresh(split), fresh(split)]
    theirs = Published(networks[0].state_dict(), split.source, device)
    to_them = batches_of(split, recipe)
    ours = [
        Ours(network, (batch for _, batch in batches_of(split, recipe)), recipe.train, device, name)
        for network, name in zip(networks, ("float32", "bfloat16"), strict=True)
    ]
    losses, seconds = ([], [], []), ([], [], [])
    for start in range(0, steps, BLOCK):
        block = range(min(BLOCK, steps - start))
        for _ in block:
            patches, batch = next(to_them)
            begin = clock()
            losses[0].append(theirs.step(patches, batch.masks))
            seconds[0].append(clock() - begin)
        with keeping_memory(torch.device(device)):
            for number, each in enumerate(ours, start=1):
                for _ in block:
                    begin = clock()
                    losses[number].append(each.step())
                    seconds[number].append(clock() - begin)
    spots = split.source.table["spots"]
    depth = sum(split.source.detected(slide).sum() for slide in spots.index) / spots.sum()
    return np.array(losses), np.array(seconds), [each.summary() for each in ours], depth


def alone(steps, device, precision):
    """Run ours with batches of 256 and four times the learning rate; losses, spots/s, parts."""
    import torch

    from sagefm.pretrain.devices import keeping_memory

    split, recipe = prepared(256, 16)
    settings = recipe.train.model_copy(update={"learning_rate": 4 * recipe.train.learning_rate})
    to_us = (batch for _, batch in batches_of(split, recipe))
    ours = Ours(fresh(split), to_us, settings, device, precision)
    with keeping_memory(torch.device(device)):
        losses = [ours.step() for _ in range(steps)]
    return losses, 256 / np.median(np.sum(ours.parts[2:], axis=1)), ours.summary()


def dense_pace(device):
    """Measure how many operations a second large dense products get: the limit of the machine."""
    import torch

    from sagefm.nn.dense import product

    a = torch.rand(4096, 4096, device=device)
    seconds = []
    for _ in range(6):
        begin = clock()
        float(product(a, a)[0, 0])
        seconds.append(clock() - begin)
    return 2 * 4096**3 / np.median(seconds)


def draw(losses, large):
    import matplotlib.pyplot as plt

    from sagefm._colors import colors
    from sagefm.pl._style import COLUMN, journal

    shades = colors(4)
    with journal():
        figure, ax = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
        spots = 64 * np.arange(1, losses.shape[1] + 1)
        ax.plot(spots, losses[0], color=shades[1], lw=2.5, label="published way")
        ax.plot(spots, losses[1], color=shades[0], lw=0.9, label="sagefm")
        ax.plot(spots, losses[2], color=shades[2], lw=0.9, ls=":", label="sagefm, bfloat16")
        ax.plot(256 * np.arange(1, len(large) + 1), large, color=shades[3], lw=0.9,
                label="sagefm, batches of 256")  # fmt: skip
        ax.set(xlabel="spots seen", ylabel="error of hidden genes\n(mean squared, log1p counts)")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        figure.savefig(OUT / "training_race.png", dpi=200)


def main():
    import torch

    require_data()
    OUT.mkdir(exist_ok=True)
    device = "cuda" if "cuda" in sys.argv[1:] else "cpu"
    steps = next((int(word) for word in sys.argv[1:] if word.isdigit()), 100)
    losses, seconds, parts, depth = race(steps, device)
    large = {name: alone(steps // 4, device, name) for name in ("float32", "bfloat16")}
    draw(losses, large["float32"][0])
    published, *rates = (64 / np.median(each[2:]) for each in seconds)
    pace = dense_pace(device)
    lines = [
        f"{SLIDES}: {depth:,.0f} genes per spot; 14,558 genes, published widths, {device}",
        f"published way, batch 64         {published:8.0f} spots/s",
    ]
    for name, rate, part in zip(("float32", "bfloat16"), rates, parts, strict=True):
        lines.append(
            f"sagefm, batch 64, {name:<10}    {rate:8.0f} spots/s, "
            f"{rate / published:5.1f} x; {part}"
        )
    for name, (_, rate, part) in large.items():
        lines.append(
            f"sagefm, batch 256, {name:<10}   {rate:8.0f} spots/s, "
            f"{rate / published:5.1f} x; {part}"
        )
    last = losses[:, -16:].mean(axis=1)
    apart = np.abs(losses[0] - losses[1])
    needed = 6 * 1.57e6 + 2 * 14558 * 1024 * (2 + 3 * 0.3)
    lines += [
        f"loss after {64 * steps:,} spots (mean of the last 1,024): published {last[0]:.5f}, "
        f"sagefm {last[1]:.5f}, bfloat16 {last[2]:.5f}, batches of 256 "
        f"{np.mean(large['float32'][0][-4:]):.5f}",
        f"largest difference of a batch from the published way: in the first ten "
        f"{apart[:10].max():.1e}, in all {apart.max():.1e}",
        f"dense products run at {pace / 1e9:.0f} GFLOP/s here; the task needs "
        f"{needed / 1e6:.0f} MFLOP a spot (first layer twice, encoder and 30 % of the decoder "
        f"three times), so at most {pace / needed:.0f} spots/s in float32",
    ]
    if not torch.cuda.is_available():
        lines.append("no CUDA device here: nothing measured on one")
    report("bench_training", lines)


if __name__ == "__main__":
    main()
