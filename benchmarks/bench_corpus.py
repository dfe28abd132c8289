"""Build, store and load a corpus of 1,000,000 spots.

Eight slides with deep counts are simulated and built into a corpus; copies of them (hard links,
under other names) make it a million spots. The loader is timed by itself and compared with training
at published size; the memory of a training process is compared between the small and the large
corpus.

    python benchmarks/bench_corpus.py
    python benchmarks/bench_corpus.py atlas    # what training on all of HEST-1k costs

`atlas` takes every 40th of the 421 human Visium slides of the table of HEST-1k, by their number of
spots, simulates them with 18,000 genes as files of a download, builds them and trains the recipe
`atlas` for an epoch; the same with every 80th shows what grows. Copies make the whole corpus, of
which the passes before the first epoch are measured. The rest is extrapolated in proportion.
"""

import json
import shutil
import subprocess
import sys
import time

import numpy as np

from _common import OUT, SHARED, in_own_process, memory, report, require_data

GENES = tuple(f"GENE{i}" for i in range(14_558))
SPOTS, SLIDES, COPIES = 5_000, 8, 25
ATLAS_GENES, ATLAS_EVERY = 18_000, 40
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


def copied(name, to, copies):
    """Make a large corpus of links to a small one."""
    large = FOLDER / to
    shutil.rmtree(large, ignore_errors=True)
    (large / "slides").mkdir(parents=True)
    shutil.copy(FOLDER / name / "corpus.json", large)
    for copy in range(copies):
        for source in (FOLDER / name / "slides").iterdir():
            target = large / "slides" / f"{source.stem}_{copy}.zarr"
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


def atlas_table(every):
    """Choose slides of HEST-1k, evenly by their number of spots."""
    import pandas as pd

    table = pd.read_csv(SHARED / "hest" / "HEST_v1_1_0.csv", dtype=str, keep_default_na=False)
    table = table[(table["species"] == "Homo sapiens") & (table["st_technology"] == "Visium")]
    spots = table["spots_under_tissue"].astype(float).astype(int)
    return table.loc[spots.sort_values(kind="stable").index[ATLAS_EVERY // 4 :: every]]


def make_atlas():
    """Simulate every 40th slide as a download, and make another one of every 80th."""
    from sagefm.pp.simulate import simulate

    genes = [f"GENE{i}" for i in range(ATLAS_GENES)]
    for every in (ATLAS_EVERY, 2 * ATLAS_EVERY):
        root = FOLDER / f"hest_{every}"
        (root / "st").mkdir(parents=True)
        table = atlas_table(every)
        table.to_csv(root / "HEST_v1_1_0.csv", index=False)
        for seed, (name, spots) in enumerate(
            zip(table["id"], table["spots_under_tissue"], strict=True)
        ):
            place = root / "st" / f"{name}.h5ad"
            there = FOLDER / f"hest_{ATLAS_EVERY}" / "st" / place.name
            if there.exists():
                place.hardlink_to(there)
                continue
            slide = simulate(int(float(spots)), genes=genes, depth=6_000, seed=seed, slide=name)
            del slide.obs["patient"], slide.uns["simulation"]
            slide.write_h5ad(place)


def build_atlas(every):
    """Build a download."""
    from sagefm.pretrain.corpus import Corpus, build
    from sagefm.pretrain.hest import hest_slides

    slides, facts = hest_slides(FOLDER / f"hest_{every}")
    begin = time.process_time()
    built = build(slides, FOLDER / f"atlas_{every}", facts=facts)
    seconds = time.process_time() - begin
    assert len(built.added) == len(slides), built
    corpus = Corpus.open(FOLDER / f"atlas_{every}")
    spots, nonzeros = (int(corpus.table[column].sum()) for column in ("spots", "nonzeros"))
    return {
        "slides": len(slides), "spots": spots, "seconds": seconds, "mb": memory("VmHWM"),
        "genes": nonzeros / spots, "gb": corpus.n_bytes / 1e9,
    }  # fmt: skip


def train_atlas(every):
    """Train the recipe for an epoch."""
    from sagefm.pretrain import Corpus, Recipe, fitting

    seconds, train = [], fitting.train

    def timed(*arguments, **options):
        begin = time.process_time()
        train(*arguments, **options)
        seconds.append(time.process_time() - begin)

    fitting.train = timed
    corpus = Corpus.open(FOLDER / f"atlas_{every}")
    changes = ["train.max_epochs=1", f"data.genes={ATLAS_GENES}"]
    begin = time.process_time()
    fitting.fit(corpus, Recipe.load("atlas", changes), progress=False)
    rest = time.process_time() - begin - seconds[0]
    return {"epoch": seconds[0], "rest": rest, "mb": memory("VmHWM")}


def start_atlas():
    """Prepare training on the whole corpus, up to the first step."""
    from sagefm.model import Config, SageFM
    from sagefm.pretrain import Corpus, Recipe
    from sagefm.pretrain.data import gene_mean_of, of_corpus
    from sagefm.pretrain.start import start

    begin = time.process_time()
    recipe = Recipe.load("atlas", [f"data.genes={ATLAS_GENES}"])
    split = of_corpus(Corpus.open(FOLDER / "atlas_1"), recipe)
    batches = split.plan(split.training, recipe).shuffled(0, 0)
    config = Config(recipe.network.name, tuple(recipe.network.widths), split.source.n_neighbors)
    model = SageFM.new(split.source.vocabulary, config, seed=0)
    start(model.network, split, gene_mean_of(split), seed=0)
    return {
        "slides": len(split.training), "spots": int(split.source.table["spots"].sum()),
        "steps": len(batches), "seconds": time.process_time() - begin, "mb": memory("VmHWM"),
    }  # fmt: skip


def atlas():
    """Measure what the whole atlas costs, in seconds of one core: other work does not matter."""
    from sagefm.pretrain import Recipe

    require_data()
    n_slides, n_spots = 421, 1_001_989
    in_own_process(__file__, "make_atlas")
    built, trained = (
        {every: in_own_process(__file__, side, every) for every in (2 * ATLAS_EVERY, ATLAS_EVERY)}
        for side in ("build_atlas", "train_atlas")
    )
    copied(f"atlas_{ATLAS_EVERY}", "atlas_1", ATLAS_EVERY)
    started = in_own_process(__file__, "start_atlas")
    large, epochs = built[ATLAS_EVERY], Recipe.load("atlas").train.max_epochs
    times = n_spots / large["spots"]
    hours = epochs * times * trained[ATLAS_EVERY]["epoch"] / 3600
    lines = [
        f"{ATLAS_GENES:,} genes, {large['genes']:,.0f} of them in a spot; seconds of one core",
        *(
            f"{each['slides']} slides, {each['spots']:,} spots: built at "
            f"{each['spots'] / each['seconds']:,.0f} spots/s with {each['mb']:,.0f} MB, "
            f"{1e6 * each['gb'] / each['spots']:.1f} kB per spot on disk; trained at "
            f"{each['spots'] / trained[every]['epoch']:,.0f} spots/s with "
            f"{trained[every]['mb']:,.0f} MB, {trained[every]['rest']:.0f} s before and after"
            for every, each in built.items()
        ),
        f"{started['slides']} slides (copies), {started['spots']:,} spots: "
        f"{started['seconds']:.0f} s up to the first of {started['steps']:,} steps of an epoch, "
        f"{started['mb']:,.0f} MB",
        f"extrapolated to {n_slides} slides of {n_spots:,} spots: building "
        f"{large['seconds'] * times / 60:.0f} min, {large['gb'] * times:.1f} GB; {epochs} epochs "
        f"{hours:.1f} h, and {started['seconds'] * n_spots / started['spots'] / 60:.0f} min before",
    ]
    report("bench_corpus_atlas", lines)


def million():
    """Measure a corpus of a million spots."""
    made = in_own_process(__file__, "make")
    built = in_own_process(__file__, "build")
    copied("small", "large", COPIES)
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


if __name__ == "__main__":
    sides = {
        "make": make, "build": build, "load": load, "train": train, "make_atlas": make_atlas,
        "build_atlas": build_atlas, "train_atlas": train_atlas, "start_atlas": start_atlas,
    }  # fmt: skip
    if len(sys.argv) > 1 and sys.argv[1] in sides:
        print(json.dumps(sides[sys.argv[1]](*sys.argv[2:])))
    else:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        (atlas if sys.argv[1:] == ["atlas"] else million)()
        shutil.rmtree(FOLDER)
