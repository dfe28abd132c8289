"""Build, store and load a corpus of 1,000,000 spots.

Eight slides with deep counts are simulated and built into a corpus; copies of them (hard links,
under other names) make it a million spots. The loader is timed by itself and compared with training
at published size; the memory of a training process is compared between the small and the large
corpus.

    python benchmarks/bench_corpus.py
"""

import json
import shutil
import subprocess
import sys
import time

import numpy as np

from _common import OUT, in_own_process, memory, report

GENES = tuple(f"GENE{i}" for i in range(14_558))
SPOTS, SLIDES, COPIES = 5_000, 8, 25
FOLDER = OUT / "bench_corpus"


def make():
    """Simulate the slides."""
    from sagefm.pp.simulate import simulate

    for number in range(SLIDES):
        name = f"slide{number}"
        slide = simulate(SPOTS, genes=GENES, depth=9_000, seed=number, patient=name, slide=name)
        slide.write_h5ad(FOLDER / f"{name}.h5ad")
    return {"genes": slide.X.nnz / SPOTS}


def build(genes=None):
    """Build the corpus."""
    from sagefm.pretrain.corpus import Corpus
    from sagefm.pretrain.corpus import build as build_corpus

    out = FOLDER / "small"
    shutil.rmtree(out, ignore_errors=True)
    slides = {f"slide{n}": FOLDER / f"slide{n}.h5ad" for n in range(SLIDES)}
    vocabulary = FOLDER / "genes.txt"
    vocabulary.write_text("\n".join(GENES))
    begin = time.perf_counter()
    built = build_corpus(slides, out, genes=vocabulary)
    seconds = time.perf_counter() - begin
    assert len(built.added) == SLIDES, built
    corpus = Corpus.open(out)
    nonzeros = int(corpus.table["nonzeros"].sum())
    return {"spots/s": SPOTS * SLIDES / seconds, "bytes": corpus.n_bytes / nonzeros}


def enlarge():
    """Make the large corpus of links to the small one."""
    large = FOLDER / "large"
    shutil.rmtree(large, ignore_errors=True)
    (large / "slides").mkdir(parents=True)
    shutil.copy(FOLDER / "small" / "corpus.json", large)
    for copy in range(COPIES):
        for number in range(SLIDES):
            source = FOLDER / "small" / "slides" / f"slide{number}.zarr"
            target = large / "slides" / f"slide{number}_{copy}.zarr"
            subprocess.run(["cp", "-al", source, target], check=True)


def batches(name):
    """Give the batches of an epoch over a corpus."""
    from sagefm.pretrain import Corpus, Recipe
    from sagefm.pretrain.batches import Batches
    from sagefm.pretrain.data import Split, split_spots
    from sagefm.pretrain.published import PublishedTask

    recipe = Recipe.load("published")
    corpus = Corpus.open(FOLDER / name)
    training, validation = split_spots(corpus.table, recipe.data, 0)
    split = Split(corpus, training, validation)
    patches = split.plan(training, recipe).shuffled(0, 0)
    return corpus, recipe, Batches(corpus, patches, (0, 0, 0), PublishedTask(0.3))


def load(n_batches=1_500):
    """Time the loader alone."""
    _, _, loader = batches("large")
    stream = iter(loader)
    for _ in range(200):  # the window fills
        next(stream)
    begin = time.perf_counter()
    spots = sum(len(next(stream).truth) for _ in range(n_batches))
    return {"spots/s": spots / (time.perf_counter() - begin)}


def train(name, n_steps=100):
    """Train for a while; give spots/s and the most memory that it took."""
    import torch

    from sagefm.model import SageFM
    from sagefm.pretrain.devices import keeping_memory

    begin = time.perf_counter()
    corpus, recipe, loader = batches(name)
    opening = time.perf_counter() - begin
    network = SageFM.new(corpus.vocabulary, seed=0).network
    optimizer = network.train().optimizer(recipe.train.learning_rate, recipe.train.weight_decay)
    seconds = []
    stream = iter(loader)
    with keeping_memory(torch.device("cpu")):
        for _ in range(n_steps):
            begin = time.perf_counter()
            batch = next(stream)
            optimizer.zero_grad()
            batch.error(network, 1.0).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
    for _ in zip(range(1_000), stream, strict=False):  # on through the slides, without the network
        pass
    return {
        "opening": opening,
        "spots": int(corpus.table["spots"].sum()),
        "spots/s": 64 / float(np.median(seconds)),
        "mb": memory("VmHWM"),
    }


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    made = in_own_process(__file__, "make")
    built = in_own_process(__file__, "build")
    enlarge()
    loader = in_own_process(__file__, "load")
    small, large = (in_own_process(__file__, "train", name) for name in ("small", "large"))
    report(
        "bench_corpus",
        [
            f"{SLIDES} simulated slides of {SPOTS:,} spots, {made['genes']:,.0f} of 14,558 genes a "
            "spot",
            f"building          {built['spots/s']:8,.0f} spots/s (one process)",
            f"on disk           {built['bytes']:8.2f} bytes per nonzero",
            f"loader alone      {loader['spots/s']:8,.0f} spots/s, "
            f"{loader['spots/s'] / large['spots/s']:.1f} x what training takes",
            *(
                f"training, published size, {each['spots']:>9,} spots: {each['spots/s']:,.0f} "
                f"spots/s, {each['mb']:,.0f} MB resident at most; opened and planned in "
                f"{each['opening']:.1f} s"
                for each in (small, large)
            ),
        ],
    )
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    sides = {"make": make, "build": build, "load": load, "train": train}
    if len(sys.argv) > 1:
        print(json.dumps(sides[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
