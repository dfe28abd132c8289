"""What a second modality has to do with the transcriptome, and whether p says so rightly.

modalities.py calibration DATA          null features on simulated and real tissue
modalities.py nulls DATA                other null maps on the same
modalities.py crc16 DATA MODEL          155 bacterial genera on a colorectal cancer
modalities.py xenium DATA MODEL         Xenium cells pooled to the spots of a breast cancer
modalities.py simulated                 CITE-Visium of which the recoverable r is known
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

import sagefm
from _common import OUT, report
from sagefm.pp.visium_array import fields
from sagefm.stats.blocks import divide
from sagefm.stats.shifts import NullMaps
from sagefm.tl.crossing import _cross

REAL = ("dlpfc_151510", "pdac_A_ST1", "her2st_C1", "crc_16", "fetal_intestine_A3")
LENGTHS = (1, 1.5, 2, 3, 5, 7, 10)
FOLLOWS = "follows library size"
N_MAPS = 99
"""p ≤ 0.05 is exact for as many null maps."""


def tissues(data):
    """Make simulated slides, and read real ones."""
    yield "simulate", sagefm.pp.simulate(1000, seed=5)
    yield "simulate_tissue", sagefm.pp.simulate_tissue("breast", 800, image=False, seed=1)
    for name in REAL:
        yield name, sagefm.read(data / "slides" / f"{name}.h5ad")


def in_pitches(slide):
    points = np.asarray(slide.obsm["spatial"], dtype=float)
    return points / np.median(cKDTree(points).query(points, 2)[0][:, 1])


def null_features(slide, n, seed):
    """Draw counts that know nothing of the slide, or only its library sizes: name → group."""
    rng, points = np.random.default_rng(seed), in_pitches(slide)
    drawn = {}

    def smooth(length):
        return fields(points, 1, length, rng)[:, 0]

    def count(log_rate, mean):
        noise = rng.gamma(2.0, 0.5, len(points))
        return rng.poisson(mean * np.exp(log_rate) * noise)

    for number in range(n):
        for length in LENGTHS:  # high counts: log1p is nearly Gaussian
            noise = rng.choice([0.0, 0.5, 1.0, 2.0]) * rng.normal(size=len(points))
            rate = np.exp(7 + 0.7 * (smooth(length) + noise))
            drawn[f"length {length}", number] = rng.poisson(rate)
        angle = rng.uniform(0, 2 * np.pi)
        slope = (points - points.mean(axis=0)) @ [np.cos(angle), np.sin(angle)] / points.std()
        drawn["trend", number] = rng.poisson(
            np.exp(7 + 0.7 * slope + rng.choice([0.2, 0.7, 1.4]) * rng.normal(size=len(points)))
        )
        mean = 10 ** rng.uniform(-1, 1)
        drawn["few counts", number] = count(0.8 * smooth(rng.choice([1.5, 3, 5, 10])), mean)
        inside = sum(
            np.hypot(*(points - points[rng.integers(len(points))]).T) < rng.uniform(1.5, 8)
            for _ in range(rng.integers(1, 4))
        )
        drawn["patches", number] = count(np.log(0.3 + 3 * inside), 1.0)
        library = np.asarray(slide.X.sum(axis=1)).ravel()
        own = np.log((library + 1) / np.median(library + 1))
        drawn[FOLLOWS, number] = count(own + 0.8 * smooth(rng.choice([1.5, 3, 5, 10])), mean)
    names = [f"{group} {number}" for group, number in drawn]
    table = pd.DataFrame(np.stack(list(drawn.values()), axis=1), slide.obs_names, names)
    return table, pd.Series([group for group, _ in drawn], index=names)


def calibration(data, n, seed):
    """Count how many null features pass, by group and by tissue."""
    rows = []
    for name, slide in tissues(data):
        started = time.perf_counter()
        slide.obsm["null"], groups = null_features(slide, n, seed)
        table = sagefm.tl.cross(slide, with_="null", n_maps=N_MAPS, seed=seed)
        rows.append(table.assign(tissue=name, group=groups[table.index]))
        print(name, f"{time.perf_counter() - started:.0f} s", flush=True)
    table = pd.concat(rows)
    OUT.mkdir(exist_ok=True)
    table.to_csv(OUT / "calibration.csv")
    return table


def passed(table, column, by):
    """Percent with p ≤ 0.05, by tissue and group."""
    percent = (100 * (table[column] <= 0.05)).groupby([table[by], table["tissue"]], sort=False)
    wide = percent.mean().unstack()[list(table["tissue"].unique())]
    wide["all"] = 100 * (table[column] <= 0.05).groupby(table[by]).mean()
    return wide.loc[list(dict.fromkeys(table[by]))].round(1)


def calibration_lines(table):
    null, follows = table[table["group"] != FOLLOWS], table[table["group"] == FOLLOWS]
    per_group = null.groupby("group")["r"]
    lines = []
    for column, of in (("p", null), ("p_given_counts", pd.concat([null, follows]))):
        by_group = passed(of, column, "group")
        by_group.loc["all"] = (100 * (null[column] <= 0.05)).groupby(null["tissue"]).mean().round(1)
        by_group.loc["all", "all"] = round(100 * (null[column] <= 0.05).mean(), 1)
        lines += [f"percent with {column} <= 0.05", "", by_group.to_markdown(), ""]
    follow = 100 * (follows["p"] <= 0.05).mean()
    lines.append(f"{FOLLOWS}: p <= 0.05 in {follow:.0f} %")
    lines.append("mean r of null features: " + ", ".join(
        f"{group} {r:.2f}" for group, r in per_group.mean().items()))  # fmt: skip
    return lines


class Moved:
    """Whole maps, moved: each is some other spot's value."""

    def __init__(self, moved):
        self.moved, self.n_maps = moved, moved.shape[1]

    def draw(self, values):
        """Yield all maps at once."""
        yield values[self.moved]


def torus(points, sections, n_maps, seed, rigid=False):
    rng, low = np.random.default_rng(seed), points.min(axis=0)
    box = np.ptp(points, axis=0) * (1 + 1 / np.sqrt(len(points)))
    tree, middle, moved = cKDTree(points - low, boxsize=box), box / 2, []
    for _ in range(n_maps):
        angle = rng.uniform(0, 2 * np.pi) if rigid else 0.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = (points - low - middle) @ turn * rng.choice([-1, 1], 2)
        moved.append(tree.query((offset + middle + rng.uniform(0, 1, 2) * box) % box)[1])
    return Moved(np.array(moved).T)


def rigid_motions(points, sections, n_maps, seed):
    return torus(points, sections, n_maps, seed, rigid=True)


def permuted_blocks(points, sections, n_maps, seed):
    rng, block = np.random.default_rng(seed), divide(points, sections, 16)
    rows = [np.flatnonzero(block == number) for number in range(block.max() + 1)]
    trees, moved = [cKDTree(points[own] - points[own].mean(axis=0)) for own in rows], []
    for _ in range(n_maps):
        source = np.empty(len(points), dtype=int)
        for number, other in enumerate(rng.permutation(len(rows))):
            offset = points[rows[number]] - points[rows[number]].mean(axis=0)
            source[rows[number]] = rows[other][
                trees[other].query(offset * rng.choice([-1, 1], 2))[1]
            ]
        moved.append(source)
    return Moved(np.array(moved).T)


class Signs:
    """Moran spectral randomization in the eigenvectors of a Laplacian, all of them."""

    def __init__(self, points, sections, n_maps, seed, ranked=False):
        distances, near = cKDTree(points).query(points, 7)
        close = distances[:, 1:].ravel() < 1.6 * np.median(distances[:, 1])
        at = np.repeat(np.arange(len(points)), 6), near[:, 1:].ravel()
        graph = sparse.csr_matrix((close.astype(float), at), (len(points), len(points)))
        laplacian = sparse.csgraph.laplacian(graph.maximum(graph.T)).toarray()
        self.modes = np.linalg.eigh(laplacian)[1].astype(np.float32)
        rng = np.random.default_rng(seed)
        self.signs = rng.choice(np.float32([-1, 1]), (len(points), n_maps))
        self.n_maps, self.ranked = n_maps, ranked

    def draw(self, values):
        """Yield all maps at once."""
        maps = self.modes @ ((self.modes.T @ values)[:, None] * self.signs)
        if self.ranked:
            ordered = np.broadcast_to(np.sort(values)[:, None], maps.shape)
            np.put_along_axis(maps, np.argsort(maps, axis=0), ordered, axis=0)
        yield maps


NULLS = {
    "torus shifts": torus,
    "rigid motions on a torus": rigid_motions,
    "permuted blocks": permuted_blocks,
    "random signs, graph Laplacian": Signs,
    "the same, ranked": lambda *args: Signs(*args, ranked=True),
    "random signs, distances (used)": NullMaps.of,
}


def nulls(data, n, seed):
    """Compare null maps on the small tissues."""
    rows = []
    for name, slide in tissues(data):
        if slide.n_obs > 1200:
            continue
        slide.obsm["null"], groups = null_features(slide, n, seed)
        slide.obsm["null"] = slide.obsm["null"].loc[:, (groups != FOLLOWS).to_numpy()]
        for null, maps in NULLS.items():
            _cross.NullMaps = type("Maps", (), {"of": staticmethod(maps)})
            table = sagefm.tl.cross(slide, with_="null", n_maps=N_MAPS, seed=seed)
            rows.append(table.assign(tissue=null, group=groups[table.index]))
            print(name, null, f"{100 * (table['p'] <= 0.05).mean():.1f} %", flush=True)
    table = pd.concat(rows)
    by_group = passed(table, "p", "group")
    by_group.loc["all"] = (100 * (table["p"] <= 0.05)).groupby(table["tissue"]).mean().round(1)
    return ["percent with p <= 0.05", "", by_group.drop(columns="all").T.to_markdown()]


MAIN = ["n_detected", "r", "r_low", "r_high", "p", "q", "r_given_counts", "p_given_counts",
        "r_library", "gain", "gain_low", "gain_high", "r_neighbors"]  # fmt: skip
SIMPLE = {
    "r_library": "library sizes", "r_total": "total of the other features",
    "r_same_gene": "same gene", "r_same_gene_smoothed": "same gene, neighborhood",
    "r_neighbors": "neighbor mean (knows the feature)",
    "r_with_neighbors": "neighbor mean and prediction",
}  # fmt: skip


def crossed(slide, model, name, groups=slice(None), **how):
    """Predict from some groups of predictors: mean of the neighborhood, spot, embedding."""
    original = _cross.predictors_of

    def some(*args):
        found = original(*args)
        return replace(found, groups=found.groups[groups])

    _cross.predictors_of = some
    try:
        return sagefm.tl.cross(slide, model, name, **how)
    finally:
        _cross.predictors_of = original


def compared(slide, model, name, seed):
    """Compare predictors, each with the library sizes; keep the table of those that are used."""
    random = sagefm.SageFM.new(model.vocabulary, model.config, seed=seed)
    variants = {
        "spot and neighborhood (used)": (None, slice(None)),
        "neighborhood": (None, slice(0, 1)),
        "embedding": (model, slice(2, 3)),
        "embedding, random weights": (random, slice(2, 3)),
        "all with the embedding": (model, slice(None)),
        "all with that of random weights": (random, slice(None)),
    }
    started = time.perf_counter(), time.process_time()
    found = crossed(slide, None, name, seed=seed)
    took = time.perf_counter() - started[0], time.process_time() - started[1]
    rows = []
    for label, (used, groups) in variants.items():
        table = crossed(slide, used, name, groups, seed=seed, n_maps=199)
        counts = {f"{column} < 0.05": (table[column] < 0.05).sum()
                  for column in ("p", "q", "p_given_counts", "q_given_counts")}  # fmt: skip
        rows.append({"predictors": label, "mean r": table["r"].mean(), **counts})
    rows += [{"predictors": of, "mean r": found[column].mean()} for column, of in SIMPLE.items()]
    above = {gain: (found[f"{gain}_low"] > 0).sum() for gain in ("gain", "gain_neighbors")}
    OUT.mkdir(exist_ok=True)
    found.to_csv(OUT / f"{name}.csv")
    return [
        f"{slide.n_obs} spots, {len(found)} features, 999 null maps: {took[0]:.0f} s "
        f"({took[1]:.0f} s of the processor)",
        *(f"{column} < 0.05: {(found[column] < 0.05).sum()}"
          for column in ("p", "q", "p_given_counts", "q_given_counts")),
        f"gain over the best baseline {found['gain'].mean():.3f}, interval above 0: "
        f"{above['gain']}",
        f"gain over neighbors {found['gain_neighbors'].mean():.3f}, interval above 0: "
        f"{above['gain_neighbors']}", "",
        pd.DataFrame(rows).round(3).to_markdown(index=False), "",
        found[MAIN].head(12).round(3).to_markdown(), "",
    ]  # fmt: skip


def crc16(data, model, seed):
    """Predict bacterial genera from a colorectal cancer."""
    slide = sagefm.read(data / "slides" / "crc_16.h5ad")
    sagefm.pp.add_counts(slide, "genera", data / "extras" / "crc_16_microbiome_genus.h5ad")
    return compared(slide, model, "genera", seed)


def xenium(data, model, seed):
    """Predict Xenium cells, pooled in the spots, from Visium."""
    slide = sagefm.read(data / "slides" / "breast_cytassist_eevee.h5ad")
    cells = ad.read_h5ad(data / "extras" / "breast_xenium_same_region_as_eevee.h5ad")
    sagefm.pp.add_counts(slide, "xenium", cells)
    return compared(slide, model, "xenium", seed)


def simulated(n_slides):
    """Compare r with what is recoverable."""
    rows = []
    for n_spots in (500, 1000, 3000):
        for seed in range(n_slides):
            slide = sagefm.pp.simulate(n_spots, n_proteins=30, seed=seed, biology_seed=seed)
            table = sagefm.tl.cross(slide, n_maps=199)
            truth = slide.uns["simulation"]["proteins"]["recoverable_r"]
            rows.append(table.assign(n_spots=n_spots, recoverable=truth[table.index]))
    table = pd.concat(rows)
    bins = pd.cut(table["recoverable"], [-0.01, 0.2, 0.5, 0.8, 1.0])
    wanted = ["recoverable", "r", "r_same_gene", "r_same_gene_smoothed", "r_library", "r_neighbors"]
    groups = table.groupby(["n_spots", bins.rename("recoverable r")], observed=True)
    means = groups[wanted].mean()
    means["proteins"] = groups.size()
    for column in ("p", "q", "p_given_counts"):
        means[f"{column} < 0.05, %"] = 100 * groups[column].apply(lambda x: (x < 0.05).mean())
    return [means.round(2).reset_index().to_markdown(index=False)]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=["calibration", "nulls", "crc16", "xenium", "simulated"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--n", type=int, default=50, help="null features of each group and tissue")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.what == "calibration":
        lines = calibration_lines(calibration(chosen.data, chosen.n, chosen.seed))
    elif chosen.what == "nulls":
        lines = nulls(chosen.data, chosen.n, chosen.seed)
    elif chosen.what == "simulated":
        lines = simulated(3)
    else:
        what = {"crc16": crc16, "xenium": xenium}[chosen.what]
        lines = what(chosen.data, sagefm.SageFM.load(chosen.model), chosen.seed)
    report(f"modalities {chosen.what}", lines)


if __name__ == "__main__":
    sys.exit(main())
