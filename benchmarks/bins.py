"""Measure what models are worth at the depth and the pitch of Visium HD bins and of cells.

    python benchmarks/bins.py thin DATA --folds FOLDER [--sections NAME ...] [--depths N ...]
    python benchmarks/bins.py summary

DATA is the folder with `slides`; FOLDER holds models that have not seen a patient, as
`benchmarks/folds.py train` writes them.

``thin``: the counts of each spot are divided at random into two halves. One half is thinned to a
median of so many counts per spot, 30 % of its genes are masked and predicted, by the model, by the
same network with random weights, and by what learns from no other slide.

- ``share_left``: error above counting noise, as a fraction of that of the best of the latter.
- The other half is the truth, the same for all depths. ``gain``: log-likelihood of its counts, in
  nats per count, above that of the profile of the slide. ``r``: correlation over spots of predicted
  and true log1p counts, library size removed, median of genes.
- Both are of genes whose two halves correlate with r of at least 0.2. ``own`` is the thinned count
  itself, not masked, and ``own, 15 spots`` its mean over the neighborhood.

``cut``: a simulated tissue of bins of 8 µm, half of whose counts are predicted as such, or summed
into larger bins or hexagons. ``gain`` is then of the other half of the counts of the bins inside.
Bins of 8 and 16 µm are also predicted with other neighbors: the 14 bins where Visium would have
them, or 60 or 200.

``cells``: the same for real cells (Xenium, a breast, 313 genes; DATA/extras), of a patient that the
model has not seen, thinned to a median of so many counts.

``areas``: domains of such a tissue at each level, copied back to its bins of 8 µm, and compared
with the regions there (adjusted Rand index): the consensus, which needs no model, and the mixture
on the embedding of the model and of random weights. ``labels``: the same for labeled sections that
are thinned.

Rows are added to benchmarks/out/bins.jsonl; ``summary`` prints the tables.
"""

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score

import folds as by_fold
import sagefm
from _common import OUT, report
from sagefm.evaluate.baselines.masked import PanelSlide
from sagefm.evaluate.baselines.training_free import NEIGHBOR_PROFILE as PROFILE
from sagefm.evaluate.baselines.training_free import SLIDE_PROFILE, training_free
from sagefm.evaluate.protocols.excess import Excess
from sagefm.pp.neighborhood import average, nearest
from sagefm.pp.scale import microns_per_unit, usual_pitch
from sagefm.stats.poisson import log1p_variance, rate_of

FOLD = {
    "fetal_intestine_A3": 0, "dlpfc_151510": 0, "her2st_C6": 0, "dlpfc2_Br8325_ant": 2,
    "her2st_F1": 3, "pdac_A_ST1": 2, "heartdev_4": 4, "her2st_B1": 4,
    "breast_cytassist_eevee": 0, "dlpfc_151673": 1,
}  # fmt: skip
DEPTHS = (50, 100, 200, 500, 1500)
CELLS, SPOTS = "breast_xenium_same_region_as_eevee", "breast_cytassist_eevee"
LEVELS = ("8um", "16um", "32um", "48um", "hexagons")
TABLE = OUT / "bins.jsonl"
MOST_BINS = 6000
"""Bins that predictions are compared with, about."""
WIDE = (61, 201)
"""Neighborhoods of the profile of the neighbors that are tried too: what a user of shallow bins
would do."""
FLOOR = 0.05
"""Fraction of the profile of the slide that is mixed with every prediction."""
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
        """Add the sums of some spots."""
        on = self.masked[rows].astype(np.float64)
        t, p, d = self.truth[rows] * on, predicted * on, self.size[rows, None] * on
        values = (on, t, p, d, t * t, p * p, d * d, t * p, t * d, p * d)
        self.sums += [each.sum(axis=0) for each in values]

    def r(self):
        """Correlate each gene; 0 where it does not vary."""
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


class Wide:
    """A method that learns from no other slide, with larger neighborhoods."""

    def __init__(self, method, neighbors):
        self.method, self.neighbors = method, neighbors

    def __call__(self, masked):
        """Predict some spots."""
        return self.method(replace(masked, slide=replace(masked.slide, neighbors=self.neighbors)))


def reliable(half, other):
    """Genes whose counts in two halves correlate."""
    size = np.log(np.maximum(other.sum(axis=1).A1, 1))
    found = Correlated(np.log1p(other.toarray()), np.ones(half.shape, dtype=bool), size)
    found.add(slice(None), np.log1p(half.toarray()))
    return found.r() >= LEAST_R


def score(aligned, source, truth, scored, model, methods, bins=None, wide=WIDE):
    """Predict masked genes of a slide: a row per method.

    Parameters
    ----------
    aligned
        The slide that is predicted.
    truth
        Spots × vocabulary: other counts of the same spots.
    scored
        Genes of the vocabulary that are compared with the truth.
    bins
        What the spots are the sum of, to which predictions are carried back.
    wide
        Sizes of the larger neighborhoods that are tried.
    """
    whole = by_fold.masked_spots(PanelSlide.of_aligned(source, aligned))
    often = scored[whole.genes]
    genes = whole.genes[often]
    size = np.log(np.maximum(truth.sum(axis=1).A1[whole.spots], 1))
    true = np.log1p(truth[whole.spots][:, genes].toarray())
    mask = np.concatenate([whole.of(b).mask[:, whole.genes] for b in by_fold.blocks(whole)])
    named = {each.name: each for each in training_free(whole, by_fold.SEED)}
    for n_near in wide:
        near = nearest(source.obsm["spatial"], min(n_near, source.n_obs - 1))
        larger = replace(whole, slide=replace(whole.slide, neighbors=near))
        by_profile = next(e for e in training_free(larger, by_fold.SEED) if e.name == PROFILE)
        name = f"{PROFILE}, {n_near - 1} neighbors"
        named[name] = Wide(by_profile, near)
    named |= dict.fromkeys(["own", "own, 15 spots", *methods])
    rows, noise = {}, {}
    for name, method in named.items():
        start = time.perf_counter()
        squared, entries, found = 0.0, 0.0, Correlated(true, mask[:, often], size)
        carried = None if bins is None else bins.of(whole.spots, mask, genes, often)
        for block, log1p, rate in predictions(name, method, model, aligned, whole):
            found.add(block, (np.log1p(rate) if log1p is None else log1p)[:, often])
            if carried is not None:
                sizes = np.maximum(aligned.library_size[whole.spots[block], None], 1)
                carried.add(block, rate[:, often] / sizes)
            if log1p is not None:
                squared += by_fold.squared_errors(whole.of(block), log1p).sum()
            if method is not None:
                entries += log1p_variance(rate)[mask[block]].sum(dtype=np.float64)
        rows[name] = {"method": name, "mse": squared / mask.sum(), "r": float(np.median(found.r())),
                      "seconds": time.perf_counter() - start, "genes": len(genes)}  # fmt: skip
        if carried is not None:
            rows[name]["gain"] = carried.log_likelihood / carried.total
        if method is not None and "mean" not in name:
            noise[name] = entries / mask.sum()
    excess = Excess.of({name: row["mse"] for name, row in rows.items()}, noise)
    reference = rows[SLIDE_PROFILE].get("gain")
    for name, row in rows.items():
        if bins is not None:
            row["gain"] -= reference
        row["best"], row["floor"] = excess.best, excess.floor
        row["share_left"] = np.nan if name.startswith("own") else excess.left(row["mse"])
    return list(rows.values())


def add(rows):
    """Add rows to the table, each as soon as it is known."""
    OUT.mkdir(exist_ok=True)
    with TABLE.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
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
            aligned = model.prepare(shallow)
            same = Bins(truth, truth, np.arange(slide.n_obs))
            found = score(aligned, shallow, truth, scored, model, methods, same)
            facts = {"what": "thin", "section": name, "depth": depth}
            add([facts | row for row in found])


class Bins:
    """Bins of a tissue, and what is the sum of them.

    Parameters
    ----------
    counts, truth
        Bins × vocabulary, two halves of the counts.
    member
        For each bin the spot that it lies in; -1 for none.
    """

    def __init__(self, counts, truth, member):
        self.truth, total = truth, counts.sum(axis=0).A1
        self.profile = total / total.sum()
        self.order = np.argsort(member, kind="stable")
        self.starts = np.searchsorted(member[self.order], np.arange(member.max() + 2))

    def of(self, spots, mask, genes, often):
        """Prepare the bins of some spots."""
        one = copy.copy(self)
        bins = [self.order[self.starts[at] : self.starts[at + 1]] for at in spots]
        one.ends = np.concatenate([[0], np.cumsum([len(each) for each in bins])])
        if len(bins) and one.ends[-1] > MOST_BINS:  # the first bins of each are enough
            most = MOST_BINS // len(bins)
            bins = [each[:: -(-len(each) // most)] for each in bins]
            one.ends = np.concatenate([[0], np.cumsum([len(each) for each in bins])])
        own = np.concatenate(bins)
        one.spot = np.repeat(np.arange(len(spots)), np.diff(one.ends))
        truth = self.truth[own]
        one.own, one.counts = truth.sum(axis=1).A1, truth[:, genes].toarray()
        one.mask = mask[:, often][one.spot]
        one.profile = self.profile[genes]
        one.log_likelihood, one.total = 0.0, float((one.counts * one.mask).sum())
        return one

    def add(self, block, fraction):
        """Add predicted fractions of the counts of a block of spots."""
        rows = slice(self.ends[block.start], self.ends[min(block.stop, len(self.ends) - 1)])
        fraction = (1 - FLOOR) * fraction[self.spot[rows] - block.start] + FLOOR * self.profile
        rate = np.maximum(fraction * self.own[rows, None], 1e-9)
        terms = (self.counts[rows] * np.log(rate) - rate) * self.mask[rows]
        self.log_likelihood += terms.sum(dtype=np.float64)


def at_visium_places(points, um_per_unit):
    """Find the bins nearest to where the 14 neighbors of a spot of Visium would be."""
    angles = np.radians(np.arange(0, 360, 60))
    steps = [100 * np.column_stack([np.cos(angles), np.sin(angles)]),
             100 * np.sqrt(3) * np.column_stack([np.cos(angles + np.pi / 6),
                                                 np.sin(angles + np.pi / 6)]),
             200 * np.array([[1, 0], [-1, 0]])]  # fmt: skip
    steps = np.concatenate([np.zeros((1, 2)), *steps]) / um_per_unit
    return cKDTree(points).query(points[:, None] + steps)[1]


def cut(given):
    """Score a simulated tissue as bins, and as what they are summed into."""
    for depth in given.depths:
        whole = sagefm.pp.simulate_tissue(
            given.tissue, given.bins, bin_um=8, depth=2 * depth, image=False, seed=given.seed
        )
        levels(given, whole, f"cut, {given.tissue}", depth, own="8um", near=("8um", "16um"))


def cells(given):
    """Score real cells, and what they are summed into."""
    whole = ad.read_h5ad(given.data / "extras" / f"{CELLS}.h5ad")
    whole.X = csr_matrix(whole.X, dtype=np.float32)
    spots = ad.read_h5ad(given.data / "slides" / f"{SPOTS}.h5ad")
    pitch = np.median(cKDTree(spots.obsm["spatial"]).query(spots.obsm["spatial"], 2)[0][:, 1])
    scale = {"scalefactors": {"microns_per_pixel": 100 / pitch}, "images": {}}
    whole.uns = {"spatial": {"cells": scale}}
    deepest = median_depth(whole) / 2
    for depth in given.depths:
        keep = min(1, depth / deepest)
        levels(given, whole, "real cells", round(keep * deepest), own="cells", near=(), keep=keep)


def levels(given, whole, what, depth, *, own, near, keep=1):
    """Score half of the counts as bins or cells (`own`), and as what they are summed into.

    A fraction `keep` of that half is shown; the other half is the truth.
    """
    model = sagefm.SageFM.load(given.folds / "patients_0_seed0.safetensors")
    half, other = thinned(whole, 0.5, np.random.default_rng(0))
    bins, _ = thinned(half, keep, np.random.default_rng(1))
    truth, fine = model.prepare(other).counts, model.prepare(bins).counts
    hexagons = [model.prepare(sagefm.pp.aggregate(one, "hexagons")).counts for one in (half, other)]
    scored = reliable(*hexagons)
    for level in given.levels:
        slide, beyond, member = bins, other, np.arange(bins.n_obs)
        if level != own:
            slide, beyond = (sagefm.pp.aggregate(one, level) for one in (bins, other))
            slide.obs["spot"] = np.arange(slide.n_obs)
            sagefm.pp.disaggregate(slide, bins, ["spot"])
            member = bins.obs.pop("spot").fillna(-1).to_numpy(dtype=np.int64)
        aligned = model.prepare(slide)
        methods = ["model", "random"]
        methods += [f"{each}, adapted" for each in methods] if given.adapt else []
        facts = {"what": f"{what}, {level}", "section": f"seed {given.seed}", "depth": depth}
        below = Bins(fine, truth, member)
        answers = model.prepare(beyond).counts
        add([facts | row for row in score(aligned, slide, answers, scored, model, methods, below)])
        if level not in near:
            continue
        points = slide.obsm["spatial"]
        scale = microns_per_unit(slide, points, usual_pitch(points, np.zeros(len(points))))
        for title, neighbors in {
            "neighbors at 100 to 200 µm": at_visium_places(points, scale),
            **{f"{n - 1} neighbors": nearest(points, n) for n in WIDE},
        }.items():
            changed = replace(aligned, neighbors=neighbors)
            facts["what"] = f"{what}, {level}, {title}"
            found = score(changed, slide, answers, scored, model, methods[:2], below, ())
            add([facts | row for row in found])


def methods_of_domains(slide, n, model):
    """Find domains of a slide by each method: its name and the seconds it takes."""
    for name in ("consensus", "model", "random"):
        start = time.perf_counter()
        if name == "consensus":
            sagefm.tl.domains(slide, n)
        else:
            used = model
            if name == "random":
                used = sagefm.SageFM.new(model.vocabulary, model.config, seed=1)
            sagefm.tl.embed(slide, used)
            sagefm.tl.domains(slide, n, method="gmm", use_rep="X_sagefm")
        yield name, time.perf_counter() - start


def agreement(labels, slide):
    """Compare the domains of a slide with its labels where it has both: adjusted Rand index."""
    found = slide.obs["sagefm_domain"]
    known = (labels.notna() & found.notna()).to_numpy()
    return adjusted_rand_score(labels[known].astype(str), found[known].astype(str))


def areas(given):
    """Find domains of a simulated tissue at each level, carried back to its bins."""
    model = sagefm.SageFM.load(given.folds / "patients_0_seed0.safetensors")
    for depth in given.depths:
        bins = sagefm.pp.simulate_tissue(
            given.tissue, given.bins, bin_um=8, depth=depth, image=False, seed=given.seed
        )
        n = bins.obs["region"].nunique()
        for level in given.levels:
            slide = bins if level == "8um" else sagefm.pp.aggregate(bins, level)
            for name, seconds in methods_of_domains(slide, n, model):
                if slide is not bins:
                    sagefm.pp.disaggregate(slide, bins, ["sagefm_domain"])
                add([{
                    "what": f"areas, {given.tissue}, {level}", "section": f"seed {given.seed}",
                    "depth": depth, "method": name, "ari": agreement(bins.obs["region"], bins),
                    "spots": slide.n_obs, "seconds": seconds,
                }])  # fmt: skip


def labels(given):
    """Find domains of labeled sections that are thinned."""
    for name in given.sections:
        model = sagefm.SageFM.load(given.folds / f"patients_{FOLD[name]}_seed0.safetensors")
        slide = sagefm.read(given.data / "slides" / f"{name}.h5ad")
        deepest = median_depth(slide)
        for depth in [*(d for d in given.depths if d < deepest), round(deepest)]:
            keep = min(1, depth / deepest)
            shallow, _ = thinned(slide, keep, np.random.default_rng(depth))
            n = slide.obs["label"].dropna().nunique()
            for method, seconds in methods_of_domains(shallow, n, model):
                add([{
                    "what": "labels", "section": name, "depth": depth, "method": method,
                    "ari": agreement(slide.obs["label"], shallow), "seconds": seconds,
                }])  # fmt: skip


def summary(given):
    """Print the tables."""
    table = pd.read_json(TABLE, lines=True).drop_duplicates(
        ["what", "section", "depth", "method"], keep="last"
    )
    lines = []
    for column in ("share_left", "mse", "r", "gain", "ari"):
        wide = table.pivot_table(index=["what", "section", "depth"], columns="method",
                                 values=column, sort=False)  # fmt: skip
        lines += [f"## {column}", "", wide.round(3).to_string(), ""]
    report("bins", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for verb in (thin, cut, cells, areas, labels):
        one = verbs.add_parser(verb.__name__)
        one.set_defaults(verb=verb)
        one.add_argument("data", type=Path)
        one.add_argument("--folds", type=Path, required=True)
        one.add_argument("--sections", nargs="+", default=list(FOLD)[:-2])
        one.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
        one.add_argument("--no-adapt", dest="adapt", action="store_false")
        one.add_argument("--tissue", default="cortex")
        one.add_argument("--bins", type=int, default=62_500)
        one.add_argument("--levels", nargs="+", default=LEVELS)
        one.add_argument("--seed", type=int, default=0)
    verbs.add_parser("summary").set_defaults(verb=summary)
    given = parser.parse_args()
    given.verb(given)


if __name__ == "__main__":
    main()
