"""Section of bench_device.py: train the network of the default model by its recipe on the device.

Recipe, genes, epochs and weights of slides are those of scripts/default_model.py, but the patients
of VALIDATION are held out, and --data may have fewer slides. The same run on the processor says
whether the device learns the same: draws are the same on both, only rounding differs.
"""

import json
import os
import signal
import sys
import threading
import time

import pandas as pd
import torch

import sagefm
from _common import HERE
from sagefm.pretrain import Recipe

VALIDATION = ["her2st_B"]
REASON = {
    "float32": "as the recipe says: counts stand in its products",
    "bfloat16": "not the recipe: its products of counts keep three digits",
}


def run(given, results):
    """Train in float32, as shipped, on the device and on the processor, then in bfloat16."""
    slides, patients, changes = _slides(given)
    results.note("training", slides={name: slide.n_obs for name, slide in slides.items()})
    print(f"{len(slides)} slides, {sum(slide.n_obs for slide in slides.values()):,} spots")
    expected = None
    for left, (where, precision) in (
        (3, (given.device, "float32")), (2, ("cpu", "float32")), (1, (given.device, "bfloat16"))
    ):  # fmt: skip
        name = f"recipe context, {precision}, {where}"
        limit = (results.deadline - time.monotonic()) / left
        found = results.attempt(
            "training", name, _fit, slides, patients,
            [*changes, f"train.precision={precision}"], where, limit,
        )  # fmt: skip
        if found is not None:
            losses = _report(results, name, *found, expected, REASON[precision])
            expected = expected or losses


def _report(results, name, result, seconds, expected, reason):
    """Add a row; `expected` are the losses of the first run."""
    history = result.history
    losses = history["validation_loss"].tolist()
    n_same = min(len(losses), len(expected or ()))
    row = {
        "seconds": seconds, "epochs": len(history), "interrupted": result.interrupted,
        "spots_per_s": float(history["spots_per_second"].median()),
        "validation_losses": [round(loss, 6) for loss in losses],
        "gene_mean": float(history["gene_mean"].iloc[0]),
        "neighbor_mean": float(history["neighbor_mean"].iloc[0]),
        "last_relative_to_first_run": losses[n_same - 1] / expected[n_same - 1] if n_same else None,
        "precision": reason,
    }  # fmt: skip
    results.row("training", name, **row)
    return losses


def _fit(slides, patients, changes, device, limit):
    """Train with a time limit: what has no time left is stopped as by Ctrl-C."""
    recipe = Recipe.load("context", changes)
    begin, done = time.perf_counter(), threading.Event()
    threading.Thread(target=_interrupt_after, args=(limit, done), daemon=True).start()
    try:
        result = sagefm.pretrain.fit(
            slides, recipe, patients=patients, device=device, workers=_workers(), progress=False
        )
    except KeyboardInterrupt:
        raise TimeoutError(f"no epoch was complete after {limit:.0f} s") from None
    finally:
        done.set()
    if device != "cpu":
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def _interrupt_after(limit, done):
    """Stop the training loop after a while; what comes before and after it takes its time."""
    done.wait(max(1.0, limit))
    while not done.wait(0.5):
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            os.kill(os.getpid(), signal.SIGINT)
            return


def _workers():
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def _slides(given):
    """Read the slides of --data with their patients, or simulate some; changes of the recipe."""
    sys.path.insert(0, str(HERE.parent / "scripts"))
    import default_model

    if given.data and (given.data / "slides.csv").is_file():
        paths = sorted((given.data / "slides").glob("*.h5ad"))
        table = pd.read_csv(given.data / "slides.csv", dtype=str).set_index("slide")["patient"]
        slides = {path.stem: sagefm.read(path) for path in paths}
        patients = {name: str(table[name]) for name in slides}
        genes, held_out = str(given.data / "detected_genes_17537.txt"), VALIDATION
    else:
        names = sagefm.SageFM.load("default", device="cpu").vocabulary.symbols
        slides = {
            f"s{i}": sagefm.pp.simulate(1000, genes=names, depth=7000, seed=i, slide=f"s{i}")
            for i in range(5)
        }
        patients = {name: f"p{i}" for i, name in enumerate(slides)}
        genes, held_out = len(names), ["p4"]
    changes = [
        f"data.genes={genes}", f"data.validation={json.dumps(held_out)}",
        f"data.weights={default_model.weights(slides)}",
    ]  # fmt: skip
    if given.small:
        slides = {name: slide[: min(300, slide.n_obs)].copy() for name, slide in slides.items()}
        changes += ["train.max_epochs=2"]
    return slides, patients, changes
