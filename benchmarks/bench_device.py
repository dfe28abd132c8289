"""Compare a CUDA device with the CPU: the same numbers, and the speed.

Needs no data and few packages: slides are simulated. Embeddings, predictions with masks,
perturbation, influence and attributions are compared for both networks, then training, resumed
training and training in bfloat16. The exit status is 1 if a difference is too large. Does nothing
without a CUDA device.

    python benchmarks/bench_device.py
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

import sagefm
from sagefm.pretrain import Recipe, loop, run

N_SPOTS, N_TRAINING, N_GENES, EPOCHS = 3000, 600, 1200, 2
WIDTHS = {"small": [256, 128, 128, 128, 256], "context": [128, 256, 256, 64]}
ONCE, TRAINED, HALF = 1e-4, 1e-4, 2e-2
"""Tolerated differences, relative to the largest number: of one pass, after training, and after
training in bfloat16. Longer trainings of a network with ReLUs drift apart by rounding."""


class Table:
    """Checks, each with its largest relative difference and both times."""

    def __init__(self):
        self.failed = []
        print(
            f"{'check':38} {'difference':>10} {'tolerated':>9} {'cpu s':>7} {'device s':>8} ratio"
        )

    def add(self, name, expected, found, tolerated, seconds, least_scale=1e-12):
        """Add a row; `seconds` are those of both sides."""
        expected, found = (np.asarray(each, dtype=np.float64) for each in (expected, found))
        same = expected.shape == found.shape and np.isfinite(found).all()
        scale = np.abs(expected).max(initial=least_scale)
        difference = np.abs(expected - found).max(initial=0) / scale if same else np.inf
        ok = difference <= tolerated
        self.failed += [] if ok else [name]
        slow, fast = seconds
        print(
            f"{name:38} {difference:10.1e} {tolerated:9.0e} {slow:7.2f} {fast:8.2f} "
            f"{slow / fast:5.1f}{'' if ok else '  FAILED'}",
            flush=True,
        )


def simulated():
    return {
        f"s{i}": sagefm.pp.simulate(N_TRAINING, seed=i, patient=f"p{i}", slide=f"s{i}")
        for i in range(3)
    }


def recipe(kind, *changes):
    fixed = [f"data.genes={N_GENES}", f"network.widths={WIDTHS[kind]}", 'data.validation=["p2"]']
    fixed += [f"train.max_epochs={EPOCHS}", "train.precision=float32"]
    return Recipe.load(kind, [*fixed, *changes])


def fit(kind, slides, device, *changes, **more):
    begin = time.perf_counter()
    result = sagefm.pretrain.fit(
        slides, recipe(kind, *changes), device=device, progress=False, **more
    )
    return result, time.perf_counter() - begin


def flat(network):
    return torch.cat([w.detach().cpu().flatten() for w in network.parameters()]).numpy()


def losses(result):
    return result.history[["train_loss", "validation_loss"]].to_numpy()


def verbs(model, slide):
    """Get what a model is used for, as functions that return an array."""
    rng = np.random.default_rng(0)
    genes = [gene for gene in slide.var_names if gene in set(model.vocabulary.symbols)]
    mask = rng.random((slide.n_obs, len(model.vocabulary))) < 0.3
    spots = slide.obs_names[:4].tolist()
    aligned = model.prepare(slide)

    def explained():
        table = sagefm.tl.explain(slide, model, spots, top=None)
        return (
            table.pivot(index="spot", columns="gene", values="total")
            .reindex(columns=genes)
            .fillna(0)
        )

    return {
        "embed": lambda: model.embed(aligned),
        "predict": lambda: model.predict(aligned),
        "predict masked genes": lambda: model.predict(aligned, hidden=mask),
        "respond in neighbors": lambda: sagefm.tl.respond(
            slide, model, {genes[0]: 2.0, genes[1]: 0.0}, genes[2:40]
        ),
        "respond in center": lambda: sagefm.tl.respond(
            slide, model, {genes[0]: 2.0}, genes[2:40], where="center"
        ),
        "influence of neighbors": lambda: sagefm.tl.influence(slide, model, genes[:30]),
        "influence of center": lambda: sagefm.tl.influence(
            slide, model, genes[:30], where="center"
        ),
        "explain": explained,
    }


def timed(function):
    """Get the result of the second call, and its time: the first call warms up."""
    function()
    begin = time.perf_counter()
    found = np.asarray(function())
    return found, time.perf_counter() - begin


class StoppedError(Exception):
    """A run is stopped in the middle of an epoch."""


@contextmanager
def stopped_at(step):
    """Let training fail at a step."""
    go_on = loop.Training.train_step

    def train_step(self, *arguments):
        if self.progress.step == step:
            raise StoppedError
        return go_on(self, *arguments)

    loop.Training.train_step = train_step
    try:
        yield
    except StoppedError:
        pass
    finally:
        loop.Training.train_step = go_on


def check(kind, slides, device, table):
    expected, slow = fit(kind, slides, "cpu")
    found, fast = fit(kind, slides, device)
    table.add(f"{kind}: losses of {EPOCHS} epochs", losses(expected), losses(found), TRAINED,
              (slow, fast))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        steps = loop_steps(kind, slides)
        with stopped_at(steps + steps // 2):
            fit(kind, slides, device, "train.save_minutes=0", folder=where)
        resumed, seconds = fit(kind, slides, device, folder=where, resume=True)
    table.add(f"{kind}: losses, resumed", losses(found), losses(resumed), TRAINED, (fast, seconds))
    weights = flat(found.model.network), flat(resumed.model.network)
    print(f"  resumed weights differ by at most {np.abs(weights[0] - weights[1]).max():.1e}")
    if kind == "small":  # the other network trains in float32
        half, seconds = fit(kind, slides, device, "train.precision=bfloat16")
        table.add(f"{kind}: losses in bfloat16", losses(found), losses(half), HALF,
                  (fast, seconds))  # fmt: skip

    model, slide = expected.model, sagefm.pp.simulate(N_SPOTS, seed=3)
    sides = {}
    for name in ("cpu", device):
        model.to(name)
        sides[name] = {verb: timed(call) for verb, call in verbs(model, slide).items()}
    for verb, (one, seconds) in sides["cpu"].items():
        other, others = sides[device][verb]
        # A response is the difference of two predictions, whose rounding it has.
        scale = 1.0 if verb.startswith("respond") else 1e-12
        table.add(f"{kind}: {verb}", one, other, ONCE, (seconds, others), scale)


def loop_steps(kind, slides):
    """Count the steps of an epoch."""
    spots = 2 * N_TRAINING  # of the training patients
    return spots // recipe(kind).train.batch_size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing to compare")
        return
    if importlib.util.find_spec("tensorboard") is None:  # not needed here
        run.Run.log = lambda *_: None
    if importlib.util.find_spec("rich") is None:  # nor is the progress bar
        loop._bar = lambda shown: MagicMock()
    begin, table = time.perf_counter(), Table()
    slides = simulated()
    for kind in WIDTHS:
        check(kind, slides, device, table)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads on the CPU; "
          f"{time.perf_counter() - begin:.0f} s")  # fmt: skip
    if table.failed:
        sys.exit(f"too large a difference: {', '.join(table.failed)}")


if __name__ == "__main__":
    main()
