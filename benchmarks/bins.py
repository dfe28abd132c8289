"""Measure what models are worth at the depth and the pitch of Visium HD bins and of cells.

    python benchmarks/bins.py thin DATA --folds FOLDER [--sections NAME ...] [--depths N ...]
    python benchmarks/bins.py summary

DATA is the folder with `slides`; FOLDER holds models that have not seen a patient, as
`benchmarks/folds.py train` writes them.

``thin``: the counts of each spot are divided at random into two halves. One half is thinned to a
median of so many counts per spot, 30 % of its genes are masked and predicted, by the model, by the
same network with random weights, and by what learns from no other slide. `share_left`: error above
counting noise, as a fraction of that of the best of the latter. The other half is the truth of all
depths: `r` is the correlation, over spots, of predicted and true log1p counts, library size
removed, median of the genes whose two halves correlate with r of at least 0.2. `own`: the thinned count itself, not masked; `own, 15 spots`: its mean over the neighborhood.

Rows are added to benchmarks/out/bins.csv; ``summary`` prints the tables.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

import folds as by_fold
import sagefm
from _common import OUT, report
from sagefm.evaluate.baselines.masked import PanelSlide
from sagefm.evaluate.baselines.training_free import training_free
from sagefm.evaluate.protocols.excess import Excess
from sagefm.pp.neighborhood import average
from sagefm.stats.poisson import log1p_variance, rate_of

FOLD = {
    "fetal_intestine_A3": 0, "dlpfc_151510": 0, "her2st_C6": 0, "dlpfc2_Br8325_ant": 2,
    "her2st_F1": 3, "heartdev_4": 4, "her2st_B1": 4,
    "breast_cytassist_eevee": 0, "dlpfc_151673": 1,
}  # fmt: skip
DEPTHS = (50, 100, 200, 500, 1500)
TABLE = OUT / "bins.csv"
LEAST_R = 0.2
"""Correlation of the two halves of the counts of a gene, from which on it is scored."""


def thinned(slide, keep, rng):
    """Keep each count with a probability; also return what is left out."""
    kept, rest = slide.copy(), slide.copy()
    counts = csr_matrix(slide.X)
    data = rng.binomial(counts.data.astype(np.int64), keep).astype(np.float32)
    for one, values in ((kept, data), (rest, counts.data - data)):
        one.X = csr_matrix((values, counts.indices, counts.indptr), counts.shape, copy=True)
        one.X.eliminate_zeros()
    return kept, rest


def median_depth(slide):
    return float(np.median(np.asarray(slide.X.sum(axis=1))))


class Correlated:
    """Correlate predictions with the truth where genes are masked, over spots.

    The part that the library size explains is removed from both.

    Parameters
    ----------
    truth
        Spots × genes, log1p counts.
    masked
        Spots × genes.
    size
        For each spot the log library size.
    """

    def __init__(self, truth, masked, size):
        self.truth, self.masked, self.size = truth, masked, size
        self.sums = np.zeros((10, truth.shape[1]))

    def add(self, rows, predicted):
        on = self.masked[rows].astype(np.float64)
        t, p, d = self.truth[rows] * on, predicted * on, self.size[rows, None] * on
        values = (on, t, p, d, t * t, p * p, d * d, t * p, t * d, p * d)
        self.sums += [each.sum(axis=0) for each in values]

    def r(self):
        n, t, p, d, tt, pp, dd, tp, td, pd = self.sums
        tt, pp, dd = n * tt - t * t, n * pp - p * p, n * dd - d * d
        tp, td, pd = n * tp - t * p, n * td - t * d, n * pd - p * d
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (tp - td * pd / dd) / np.sqrt((tt - td**2 / dd) * (pp - pd**2 / dd))
        return np.where(np.isfinite(r), r, 0)


def predictions(name, method, model, aligned, whole):
    """Yield rows of `whole` and log1p counts, or rates, of a method."""
    if name in ("own", "own, 15 spots"):
        counts = aligned.counts
        if name != "own":
            counts = average(aligned.neighbors) @ counts
        for block in by_fold.blocks(whole):
            yield block, None, counts[whole.spots[block]][:, whole.genes].toarray()
    elif method is not None:
        for block in by_fold.blocks(whole):
            log1p, rate = method(whole.of(block))
            yield block, log1p, rate_of(log1p) if rate is None else rate
    else:
        used = model
        if name.startswith("random"):
            used = sagefm.SageFM.new(model.vocabulary, model.config, seed=1)
        for block in used.predict_masked(
            aligned, [whole.genes], mask=lambda block: whole.of(block).mask, spots=whole.spots,
            block_size=by_fold.BLOCK, adapt=name.endswith("adapted"),
        ):  # fmt: skip
            yield block.spots, block.log1p, rate_of(block.log1p)


def reliable(half, other):
    """Genes whose counts in two halves correlate."""
    size = np.log(np.maximum(other.sum(axis=1).A1, 1))
    found = Correlated(np.log1p(other.toarray()), np.ones(half.shape, dtype=bool), size)
    found.add(slice(None), np.log1p(half.toarray()))
    return found.r() >= LEAST_R


def score(aligned, source, truth, scored, model, methods):
    """Predict masked genes of a slide: a row per method.

    Parameters
    ----------
    aligned
        The slide that is predicted.
    truth
        Spots × vocabulary: other counts of the same spots.
    scored
        Genes of the vocabulary that are compared with the truth.
    """
    whole = by_fold.masked_spots(PanelSlide.of_aligned(source, aligned))
    often = scored[whole.genes]
    genes = whole.genes[often]
    size = np.log(np.maximum(truth.sum(axis=1).A1[whole.spots], 1))
    true = np.log1p(truth[whole.spots][:, genes].toarray())
    mask = np.concatenate([whole.of(b).mask[:, whole.genes] for b in by_fold.blocks(whole)])
    named = {each.name: each for each in training_free(whole, by_fold.SEED)}
    named |= dict.fromkeys(["own", "own, 15 spots", *methods])
    rows, noise = {}, {}
    for name, method in named.items():
        start = time.perf_counter()
        squared, entries, found = 0.0, 0.0, Correlated(true, mask[:, often], size)
        for block, log1p, rate in predictions(name, method, model, aligned, whole):
            found.add(block, (np.log1p(rate) if log1p is None else log1p)[:, often])
            if log1p is not None:
                squared += by_fold.squared_errors(whole.of(block), log1p).sum()
            if method is not None:
                entries += log1p_variance(rate)[mask[block]].sum(dtype=np.float64)
        rows[name] = {"method": name, "mse": squared / mask.sum(), "r": float(np.median(found.r())),
                      "seconds": time.perf_counter() - start, "genes": len(genes)}  # fmt: skip
        if method is not None and "mean" not in name:
            noise[name] = entries / mask.sum()
    excess = Excess.of({name: row["mse"] for name, row in rows.items()}, noise)
    for name, row in rows.items():
        row["best"], row["floor"] = excess.best, excess.floor
        row["share_left"] = np.nan if name.startswith("own") else excess.left(row["mse"])
    return list(rows.values())


def add(rows):
    OUT.mkdir(exist_ok=True)
    text = pd.DataFrame(rows).to_csv(index=False, header=not TABLE.exists())
    with TABLE.open("a") as file:
        file.write(text)
    for row in rows:
        print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v}" for k, v in row.items()),
              flush=True)  # fmt: skip


def thin(given):
    """Score thinned sections."""
    for name in given.sections:
        model = sagefm.SageFM.load(given.folds / f"patients_{FOLD[name]}_seed0.safetensors")
        slide = sagefm.read(given.data / "slides" / f"{name}.h5ad")
        half, other = thinned(slide, 0.5, np.random.default_rng(0))
        truth, deepest = model.prepare(other).counts, median_depth(half)
        scored = reliable(model.prepare(half).counts, truth)
        for depth in [*(d for d in given.depths if d < deepest), round(deepest)]:
            shallow, _ = thinned(half, min(1, depth / deepest), np.random.default_rng(depth))
            methods = ["model", "random"]
            methods += [f"{each}, adapted" for each in methods] if given.adapt else []
            found = score(model.prepare(shallow), shallow, truth, scored, model, methods)
            facts = {"what": "thin", "section": name, "depth": depth}
            add([facts | row for row in found])


def summary(given):
    """Print the tables."""
    table = pd.read_csv(TABLE).drop_duplicates(["what", "section", "depth", "method"], keep="last")
    lines = []
    for column in ("share_left", "r"):
        wide = table.pivot_table(index=["what", "section", "depth"], columns="method",
                                 values=column, sort=False)  # fmt: skip
        lines += [f"## {column}", "", wide.round(3).to_string(), ""]
    report("bins", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for verb in (thin,):
        one = verbs.add_parser(verb.__name__)
        one.set_defaults(verb=verb)
        one.add_argument("data", type=Path)
        one.add_argument("--folds", type=Path, required=True)
        one.add_argument("--sections", nargs="+", default=list(FOLD)[:-2])
        one.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
        one.add_argument("--no-adapt", dest="adapt", action="store_false")
    verbs.add_parser("summary").set_defaults(verb=summary)
    given = parser.parse_args()
    given.verb(given)


if __name__ == "__main__":
    main()
