"""Section of bench_device.py: spots/s of the default model, and how near they are to the roofs.

Operations are counted by formula, two for each product and sum; bytes are the least that the step
can move: inputs read once and outputs written once, weights and the state of Adam included. So
shares are of what no program can beat; what the processor of the host does meanwhile counts
against the device. Counts go to the device on the way, which is measured by itself, too.
"""

import time
from itertools import pairwise

import numpy as np
import torch

import sagefm
from _device import clock, device_clock, side_by_side, synchronize
from _device_equality import on_disk
from sagefm.pp.sections import sections_of
from sagefm.pretrain import Recipe
from sagefm.pretrain.data import of_memory
from sagefm.pretrain.loop import Epochs
from sagefm.pretrain.tasks import TASKS

DEPTH = 7000.0
"""Counts of a simulated spot: then 3,300 genes are seen in it, as in a spot of a Visium slide."""
N_PREDICTED = 4096
STEPS, N_BATCHES = 20, 6


def run(given, results):
    """Measure prediction, then training."""
    roofs = results.content["machine"].get("roofs", {})
    model = sagefm.SageFM.load("default", device=given.device)
    tile = sagefm.pp.simulate(1000, genes=model.vocabulary.symbols, depth=DEPTH, seed=0)
    slide = side_by_side(tile, 2 if given.small else 20)
    start_of = time.perf_counter()
    aligned = model.prepare(slide)
    prepare = time.perf_counter() - start_of
    nnz, n_spots = int(aligned.counts.nnz), slide.n_obs
    results.note("speed", spots=n_spots, genes=len(model.vocabulary), nonzeros=nnz,
                 genes_per_spot=nnz / n_spots, prepare_s=prepare)  # fmt: skip
    print(f"{n_spots:,} spots, {nnz / n_spots:,.0f} genes a spot; alignment and neighborhoods "
          f"{prepare:.1f} s", flush=True)  # fmt: skip
    bench = Bench(given.device, results, roofs, 2 if given.small else STEPS)
    _embedding(bench, model, slide, aligned)
    _prediction(bench, model, aligned, 512 if given.small else N_PREDICTED)
    results.attempt("speed", "training steps", _training_steps, bench, tile, given.small)
    model.to("cpu")
    few = 256 if given.small else 1024
    bench = Bench("cpu", results, {}, 1, "processor: ")
    name = "processor: embed, from counts"
    seconds = results.attempt("speed", name, clock, lambda: model.embed(aligned), "cpu", 3, 1)
    if seconds is not None:
        results.row("speed", name, spots_per_s=n_spots / seconds, ms=1e3 * seconds)
    _prediction(bench, model, aligned, few, 1)


def _training_steps(bench, tile, small):
    """Measure the steps of both networks."""
    slides = {"a": tile, "b": side_by_side(tile, 4 if small else 12)}
    recipe = Recipe.load("context", [f"data.genes={tile.n_vars}", "data.validation=[]"])
    split = of_memory(slides, sections_of(slides), recipe)
    for kind in ("context", "published"):
        for precision in ("float32", "bfloat16"):
            for batch in (128, 1024) if kind == "published" else (128,):
                name = f"training step: {kind}, {precision}, {batch}"
                bench.results.attempt(
                    "speed", name, _training, bench, split, kind, precision, batch, name
                )


class Bench:
    """Rows of the table, with their shares of the roofs."""

    def __init__(self, device, results, roofs, n_steps, prefix=""):
        self.device, self.results, self.roofs = device, results, roofs
        self.n_steps, self.prefix = n_steps, prefix

    def row(self, name, n_spots, seconds, flops=None, moved=None, precision="float32", **more):
        """Add a row: what a step of so many spots takes."""

        def share(amount, roof):
            return amount / seconds / self.roofs[roof] if amount and roof in self.roofs else None

        self.results.row(
            "speed", self.prefix + name, spots_per_s=n_spots / seconds, ms=1e3 * seconds,
            arithmetic_share=share(flops, precision), memory_share=share(moved, "memory"),
            gflop=flops and flops / 1e9, gbyte=moved and moved / 1e9, **more,
        )  # fmt: skip


@torch.inference_mode()
def _embedding(bench, model, slide, aligned):
    """Measure the transfer, the sparse product, and the whole."""
    from sagefm.nn.sparse import SparseRows

    network, device = model.network, bench.device
    counts, [n_spots, n_genes], nnz = aligned.counts, aligned.counts.shape, aligned.counts.nnz
    width, n_keys = network.widths[0], network.n_keys(network.widths)
    sparse, first = 8 * nnz + 4 * n_spots, 4 * n_genes * width
    product = 2 * nnz * width
    least = sparse + first + 4 * n_spots * (width + n_keys)
    embedding = 2 * n_spots * width * (width + n_keys + 16) + 15 * n_spots * (width + n_keys)

    def transfer():
        seconds = clock(lambda: SparseRows.from_scipy(counts, device), device)
        bench.results.row("speed", "transfer of the counts", spots_per_s=n_spots / seconds,
                          ms=1e3 * seconds, gbyte=sparse / 1e9,
                          gbyte_per_s=sparse / 1e9 / seconds)  # fmt: skip

    def sparse_product():
        rows = SparseRows.from_scipy(aligned.log1p, device)
        seconds = device_clock(lambda: rows.times(network.first), device, 10)
        bench.row("sparse product on the device", n_spots, seconds, product,
                  sparse + first + 4 * n_spots * width)  # fmt: skip

    def behind():
        encoded = model.encode(aligned)
        _ = encoded.projected, encoded.expected

        def task():
            encoded.__dict__.pop("residuals", None)
            encoded.__dict__.pop("_embedded", None)
            return encoded.embed(aligned.neighbors)

        bench.row("embedding, after the product", n_spots, clock(task, device), embedding,
                  4 * n_spots * (2 * width + n_keys))  # fmt: skip

    def whole():
        seconds = clock(lambda: model.embed(aligned), device, 3, 1)
        bench.row("embed, from counts to host", n_spots, seconds, product + embedding, least)
        seconds = clock(lambda: model.embed(on_disk(slide)), device, 2, 1)
        bench.row("embed, from counts on disk", n_spots, seconds)

    tasks = {
        "transfer of the counts": transfer,
        "sparse product on the device": sparse_product,
        "embedding, after the product": behind,
        "embed, from counts to host": whole,
    }
    for name, task in tasks.items():
        bench.results.attempt("speed", name, task)


def _predicted(model, aligned, spots, mask=None, genes=None):
    """Predict some spots, the results thrown away block by block."""
    genes = np.arange(len(model.vocabulary)) if genes is None else genes
    where = None if mask is None else "center"
    for _ in model.predict_masked(aligned, [genes], mask=mask, where=where, spots=spots):
        pass


def _prediction(bench, model, aligned, n_predicted, repeats=3):
    network, n_genes = model.network, len(model.vocabulary)
    width, hidden, _, n_z = network.widths
    some = np.linspace(0, len(aligned.neighbors) - 1, n_predicted).round().astype(np.int64)
    nnz = int(aligned.counts[some].nnz)
    layers = 2 * n_predicted * (5 * width * hidden + hidden**2 + hidden * n_z)
    dense = 2 * n_predicted * n_genes * (network.MOST + n_z)
    flops, output = dense + layers, 4 * n_predicted * n_genes
    moved = output + 8 * nnz * 15 + 4 * n_genes * (network.MOST + n_z)
    mask = np.random.default_rng(0).random((n_predicted, n_genes)) < 0.3
    masking = 2 * n_predicted * n_genes * width + 2 * nnz * width
    # Of each task of N spots, the encoding of the whole slide is a part, and is taken away.
    encoding = bench.results.attempt(
        "speed", bench.prefix + "encoding", clock, lambda: _predicted(model, aligned, some[:1]),
        bench.device, repeats, 1,
    )  # fmt: skip
    if encoding is None:
        return
    bench.row("encoding, before any prediction", len(aligned.neighbors), encoding)
    for name, hidden_genes, more in (
        ("predict all genes", None, 0),
        ("predict with 30 % masked", mask, masking),
    ):

        def task(name=name, hidden_genes=hidden_genes, more=more):
            seconds = clock(
                lambda: _predicted(model, aligned, some, hidden_genes), bench.device, repeats, 1
            )
            seconds = max(seconds - encoding, 1e-9)
            bench.row(name, n_predicted, seconds, flops + more, moved + (more and output // 4))

        bench.results.attempt("speed", bench.prefix + name, task)


def _training(bench, split, kind, precision, batch_size, name):
    """Measure steps on batches that are on the device, and with batches that are made meanwhile."""
    from lightning_fabric.utilities import move_data_to_device

    device = bench.device
    recipe = Recipe.load(kind, ["data.validation=[]", f"train.batch_size={batch_size}"])
    settings, widths = recipe.train, tuple(recipe.network.widths)
    fresh = sagefm.SageFM.new(
        split.source.vocabulary, sagefm.model.Config(recipe.network.name, widths), seed=0
    )
    network = fresh.network.train().to(device)
    optimizer = network.optimizer(1e-5, settings.weight_decay)
    plan = split.plan(split.training, recipe)
    epochs = Epochs(split.source, plan, plan, TASKS[recipe.network.name], settings, 8)
    made = iter(epochs.train(0, 0, 0, 1))
    batches = [move_data_to_device(next(made), device) for _ in range(N_BATCHES)]
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
    step_of = _Step(network, optimizer, autocast, settings.clip_norm)
    numbers = iter(range(10**9))
    seconds = clock(
        lambda: step_of(batches[next(numbers) % N_BATCHES]), device, bench.n_steps, N_BATCHES
    )
    flops, moved = zip(*(_cost(kind, network, batch) for batch in batches), strict=True)
    n_spots = float(np.mean([len(batch.masks.masked) for batch in batches]))
    synchronize(device)
    begin, n_done, n_steps = time.perf_counter(), 0, 0
    for batch in made:
        step_of(move_data_to_device(batch, device))
        n_done, n_steps = n_done + len(batch.masks.masked), n_steps + 1
        if n_steps == bench.n_steps or time.perf_counter() - begin > 8:
            break
    synchronize(device)
    made.close()
    whole = n_done / (time.perf_counter() - begin) if n_done else None
    bench.row(name, n_spots, seconds, float(np.mean(flops)), float(np.mean(moved)), precision,
              spots_per_s_with_batches=whole)  # fmt: skip


class _Step:
    """A step of the optimizer, as in training."""

    def __init__(self, network, optimizer, autocast, clip_norm):
        self.network, self.optimizer = network, optimizer
        self.autocast, self.clip_norm = autocast, clip_norm

    def __call__(self, batch):
        with self.autocast:
            loss = batch.error(self.network, 1.0)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.optimizer.step()


def _cost(kind, network, batch):
    """Count operations and least bytes of a step."""
    n_weights = sum(parameter.numel() for parameter in network.parameters())
    # Read twice, with three numbers of Adam read and written, a gradient written and read.
    moved = 4 * n_weights * (2 + 6 + 2) + 8 * len(batch.rows.values)
    n_genes, n_centers = len(network.first), len(batch.masks.masked)
    masked = float(batch.masks.masked.float().mean())
    if kind == "published":
        widths = network.widths
        layers = sum(a * b for a, b in pairwise(widths))
        mean = sum(operator.numel() for operator in batch.operators) * n_genes
        first = 2 * n_centers * n_genes * widths[0]  # no gradient of the counts
        rest = 3 * n_centers * (layers + n_genes * widths[-1])
        return 2 * (mean + first + rest), moved + 4 * n_centers * n_genes
    width, hidden, _, n_z = network.widths
    n_spots, nnz = len(batch.counts.ends) - 1, len(batch.rows.values)
    sparse = 2 * nnz * width * (1 + masked * n_centers / n_spots)
    background = 2 * 16 * n_genes * width
    similar = 2 * masked * n_centers * n_spots * n_genes
    correction = 3 * masked * n_centers * n_genes * n_z
    attention = 3 * n_centers * n_spots * (network.n_keys(network.widths) + width)
    layers = 3 * n_centers * (5 * width * hidden + hidden**2 + hidden * n_z)
    flops = 2 * (sparse + background + similar + correction + attention + layers)
    return flops, moved + 8 * nnz + 12 * n_spots * n_genes  # the counts, dense
