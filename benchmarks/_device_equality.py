"""Section of bench_device.py: the device gives what the CPU gives.

One pass of a network is the same to 1e-4 of the largest number. What is trained on the way is
compared by what it is worth: the first steps of Adam divide each gradient by its own size, so that
a gradient that is nothing but rounding moves its weight by the whole learning rate, in whichever
direction the rounding has. So adapted embeddings and predictions are compared to 2e-2, and the mean
squared error of masked counts, which does not depend on such weights, to 1e-3.
"""

import functools
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import sagefm
from _device import difference, synchronize
from sagefm.pp.writing import write_slide
from sagefm.pretrain import Recipe, loop

WIDTHS = {"small": [256, 128, 128, 128, 256], "context": [128, 256, 256, 64]}
ONCE, TRAINED, HALF, ADAPTED, WORTH = 1e-4, 1e-4, 2e-2, 2e-2, 1e-3
"""Tolerated differences: of one pass, of losses after training, of losses in bfloat16 (8 bits of a
number), of numbers after an adaptation, of mean squared errors after an adaptation."""
N_GENES, EPOCHS = 1200, 2


def run(given, results):
    """Compare both networks as they are trained and used, then the default model."""
    n_spots, n_training = (600, 300) if given.small else (2000, 600)
    slides = {
        f"s{i}": sagefm.pp.simulate(n_training, seed=i, patient=f"p{i}", slide=f"s{i}")
        for i in range(3)
    }
    for kind in (kind for kind in WIDTHS if kind in given.models):
        model = _compare_training(kind, slides, given.device, results)
        if model is not None:
            slide = sagefm.pp.simulate(n_spots, seed=3)
            _compare(f"{kind}: ", model, verbs(model, slide), given.device, results)
    if "default" not in given.models:
        return
    model = sagefm.SageFM.load("default", device="cpu")
    genes = model.vocabulary.symbols
    slide = sagefm.pp.simulate(n_spots // 2, genes=genes, depth=8000, seed=4)
    _compare("default: ", model, verbs_of_default(model, slide), given.device, results)


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


def losses(result):
    return result.history[["train_loss", "validation_loss"]].to_numpy()


def _compare_training(kind, slides, device, results):
    """Train on both sides, resume, and train in bfloat16; give the model of the CPU."""

    def compare(name, expected, found, tolerated, seconds):
        _row(results, f"{kind}: {name}", losses(expected), losses(found), tolerated, seconds)

    made = results.attempt("equality", f"{kind}: training, cpu", fit, kind, slides, "cpu")
    if made is None:
        return None
    expected, slow = made
    for name, changes, tolerated in (
        ("losses", (), TRAINED),
        ("losses in bfloat16", ("train.precision=bfloat16",), HALF),
    ):
        found = results.attempt("equality", f"{kind}: {name}", fit, kind, slides, device, *changes)
        if found is not None:
            compare(name, expected, found[0], tolerated, (slow, found[1]))
    resumed = results.attempt(
        "equality", f"{kind}: losses, resumed", _resumed, kind, slides, device
    )
    if resumed is not None:
        compare("losses, resumed", expected, resumed[0], TRAINED, (slow, resumed[1]))
    return expected.model


def _resumed(kind, slides, device):
    """Stop a run in the middle of its second epoch, and let another one go on."""
    n_steps = 2 * len(next(iter(slides.values()))) // recipe(kind).train.batch_size
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        with _stopped_at(n_steps + n_steps // 2):
            fit(kind, slides, device, "train.save_minutes=0", folder=where)
        return fit(kind, slides, device, folder=where, resume=True)


class _StoppedError(Exception):
    """A run is stopped in the middle of an epoch."""


@contextmanager
def _stopped_at(step):
    """Let training fail at a step."""
    go_on = loop.Training.train_step

    def train_step(self, *arguments):
        if self.progress.step == step:
            raise _StoppedError
        return go_on(self, *arguments)

    loop.Training.train_step = train_step
    try:
        yield
    except _StoppedError:
        pass
    finally:
        loop.Training.train_step = go_on


def verbs(model, slide):
    """Get what a model is used for: name → tolerated difference, function that gives an array."""
    rng = np.random.default_rng(0)
    vocabulary = model.vocabulary.symbols
    genes = [gene for gene in slide.var_names if gene in set(vocabulary)]
    mask = rng.random((slide.n_obs, len(vocabulary))) < 0.3
    spots = slide.obs_names[:4].tolist()
    aligned = model.prepare(slide)
    lacking = slide[:, ~slide.var_names.isin(genes[:40])].copy()
    pairs = list(zip(genes[:4], genes[4:8], strict=True))
    two = {genes[0]: 2.0, genes[1]: 0.0}

    @torch.inference_mode()
    def encoded():
        return model.encode(aligned).centers(aligned.neighbors).pooled.cpu().numpy()

    def explained():
        table = sagefm.tl.explain(slide, model, spots, top=None)
        table = table.pivot(index="spot", columns="gene", values="total")
        return table.reindex(columns=genes).fillna(0)

    def masked_slide():
        groups = [np.arange(start, start + 20) for start in (0, 20)]
        blocks = model.predict_masked(aligned, groups, where="slide")
        return np.concatenate([block.log1p for block in blocks])

    def perturbed():
        table = sagefm.tl.perturb(slide, model, pairs, n_matched=4, n_spots=128, n_null_spots=32)
        return table.select_dtypes("number").fillna(0)

    once = {
        "encode": encoded,
        "embed": lambda: model.embed(aligned),
        "embed, counts on disk": lambda: model.embed(on_disk(slide)),
        "predict, counts on disk": lambda: model.predict(on_disk(slide), genes=genes[:5]),
        "predict": lambda: model.predict(aligned),
        "predict, few genes": lambda: model.predict(aligned, genes=genes[:5]),
        "predict, genes lacking": lambda: model.predict(lacking),
        "predict, masked": lambda: model.predict(aligned, hidden=mask),
        "predict, masked around": lambda: model.predict(aligned, hidden=mask, hidden_around=True),
        "predict, masked in the slide": masked_slide,
        "perturb": perturbed,
        "respond, neighbors": lambda: sagefm.tl.respond(slide, model, two, genes[2:40]),
        "respond, center": lambda: sagefm.tl.respond(
            slide, model, two, genes[2:40], where="center"
        ),
        "respond, attention held": lambda: sagefm.tl.respond(
            slide, model, two, genes[2:40], hold="attention"
        ),
        "influence, neighbors": lambda: sagefm.tl.influence(slide, model, genes[:30]),
        "influence, center": lambda: sagefm.tl.influence(slide, model, genes[:30], where="center"),
        "explain": explained,
        "saved and loaded": lambda: _saved(model).embed(aligned),
    }
    tolerated = {name: (ONCE, task) for name, task in once.items()}
    if model.config.network == "context":
        tolerated |= adaptations(model, slide, mask)
    return tolerated


def adaptations(model, slide, mask):
    """Get the same for what is adapted to a slide."""
    truth = model.prepare(slide)
    scored = mask & truth.measured

    def error():
        # Prepared anew, since what was fitted is kept with the result.
        predicted = model.predict(model.prepare(slide), hidden=mask, adapt=True)
        return np.square(predicted - truth.log1p.toarray())[scored].mean()

    def before_and_after():
        facts = model.adapt(slide).provenance["adapted_to"]
        return [facts["error_before"], facts["error"]]

    return {
        "adapt: embeddings": (ADAPTED, lambda: model.adapt(slide).embed(slide)),
        "adapt: error before, after": (WORTH, before_and_after),
        "predict, adapted: masked": (
            ADAPTED, lambda: model.predict(model.prepare(slide), hidden=mask, adapt=True)
        ),
        "predict, adapted: error": (WORTH, error),
    }  # fmt: skip


def verbs_of_default(model, slide):
    """Get the same for the default model at its size."""
    aligned = model.prepare(slide)
    rng = np.random.default_rng(1)
    mask = rng.random((slide.n_obs, len(model.vocabulary))) < 0.3
    return {
        "embed": (ONCE, lambda: model.embed(aligned)),
        "embed, counts on disk": (ONCE, lambda: model.embed(on_disk(slide))),
        "predict": (ONCE, lambda: model.predict(aligned)),
        "predict, masked": (ONCE, lambda: model.predict(aligned, hidden=mask)),
        "adapt: error before, after": adaptations(model, slide, mask)["adapt: error before, after"],
        "predict, adapted: error": adaptations(model, slide, mask)["predict, adapted: error"],
    }


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory()


def on_disk(slide):
    """Leave the counts of a slide on disk."""
    path = Path(_folder().name) / f"{slide.n_obs}_{slide.n_vars}.h5ad"
    if not path.exists():
        write_slide(slide.copy(), path)
    return sagefm.read(path, backed=True)


def _saved(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return sagefm.SageFM.load(path, device=str(model.device))


def _compare(prefix, model, tasks, device, results):
    for name, (tolerated, task) in tasks.items():
        sides = []
        for side in ("cpu", device):
            model.to(side)
            found = results.attempt("equality", prefix + name, _timed, task, side)
            if found is None:
                break
            sides.append(found)
        else:
            (one, slow), (other, fast) = sides
            # A response is the difference of two predictions, whose rounding it has.
            least = 1.0 if name.startswith("respond") else 0.0
            _row(results, prefix + name, one, other, tolerated, (slow, fast), least)
    model.to("cpu")


def _timed(task, side):
    synchronize(side)
    begin = time.perf_counter()
    found = np.asarray(task(), dtype=np.float64)
    return found, time.perf_counter() - begin


def _row(results, name, expected, found, tolerated, seconds, least=0.0):
    off = difference(expected, found)
    if least and np.isfinite(off):
        scale = np.abs(expected).max(initial=1e-12)
        off *= scale / max(scale, least)
    same = off <= tolerated
    if not same:
        results.failed.append(name)
    results.row(
        "equality", name, difference=off, tolerated=tolerated, cpu_s=seconds[0],
        device_s=seconds[1], ok="yes" if same else "NO",
    )  # fmt: skip
