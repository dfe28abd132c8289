"""Impute genes that a whole slide lacks, and compare them with Xenium cells of the same region.

    python benchmarks/xenium.py DATA [--model FILE] [--seed S]

DATA is the folder with `slides.csv`, `slides` and `extras`. The genes of the Xenium panel are
removed from the whole Visium slide, a tenth at a time and then all together, and imputed from the
other genes. The truth are counts of the Xenium cells within 50 µm of the center of a spot (half of
the pitch: every cell counts once); within 27.5 µm, the size of a spot, a third of the cells is left
and all correlations are lower. The measured counts of Visium are the ceiling.

Baselines learn from the slides that the model was trained on; a model that has seen this patient is
refused. Correlations are of log1p counts over spots; partial ones have the log1p total of the
Xenium counts of the spot removed. Intervals (95 %) are of paired differences, over genes, and over
20 tiles of neighboring spots. A row per gene and method is written to benchmarks/out/xenium.csv.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

import sagefm
from _common import OUT, report
from sagefm.evaluate.baselines import predictors
from sagefm.evaluate.baselines.masked import MaskedSpots, PanelSlide
from sagefm.evaluate.baselines.reference import Reference, SlideSummary, sample_size
from sagefm.nn.masking import Masks
from sagefm.pp.neighborhood import average
from sagefm.pp.pseudonyms import is_among
from sagefm.stats.genes import GeneSums
from sagefm.stats.resampling import interval, resampled
from sagefm.tl.imputation._recovery import areas_of

SLIDE, CELLS = "breast_cytassist_eevee", "breast_xenium_same_region_as_eevee"
SPOT, HALF_PITCH = 27.5, 50.0
GROUPS, CEILING, GOOD = 10, 0.3, 0.3
STEPS = (0, 0.2, 0.5, 0.8, 1.01)
MODEL, RANDOM, VISIUM = "model", "random weights", "measured Visium gene"
SMOOTHED = "measured Visium gene, mean of 15 spots"
REFERENCES = ("ridge on the center", "ridge on center and neighbors", predictors.REFERENCE_PROFILE)
KNOWN = ("KRT14", "KRT5", "ERBB2", "CD3E", "CD68")


def pooled(slide, cells, genes, micrometers):
    """Sum the counts of cells around each spot: spots × genes."""
    distance = np.median(cKDTree(slide.obsm["spatial"]).query(slide.obsm["spatial"], 2)[0][:, 1])
    radius = micrometers * distance / slide.uns["spot_pitch_um"]
    near = cKDTree(cells.obsm["spatial"]).query_ball_point(slide.obsm["spatial"], radius)
    spots = np.repeat(np.arange(slide.n_obs), [len(each) for each in near])
    columns = np.concatenate(near).astype(int)
    member = csr_matrix((np.ones(len(spots)), (spots, columns)), (slide.n_obs, cells.n_obs))
    return (member @ csr_matrix(cells[:, genes].X)).toarray(), np.diff(member.indptr)


def training_slides(data, model):
    """List name, patient and path of the slides that a model was trained on."""
    table = pd.read_csv(data / "slides.csv", index_col="slide")
    recorded, patients = (model.provenance.get(entry, []) for entry in ("slides", "patients"))
    names = [name for name in table.index if is_among(name, recorded)]
    if SLIDE in names or is_among(table.loc[SLIDE, "patient"], patients):
        sys.exit(f"the model was trained on {SLIDE}; give one that was not: --model FILE")
    found = [(name, table.loc[name, "patient"], data / "slides" / f"{name}.h5ad")
             for name in names]  # fmt: skip
    return found or sys.exit("the model does not say which slides of DATA it was trained on")


def learned(slides, vocabulary, genes, seed):
    """Summarize training slides for baselines, and correlate genes with all genes within them."""
    summaries, positions = {}, vocabulary.positions(genes)
    partners = np.zeros((len(genes), len(vocabulary)))
    for i, (name, patient, path) in enumerate(slides):
        slide = PanelSlide.of(sagefm.read(path), vocabulary)
        summaries[name] = SlideSummary.of(slide, patient, sample_size(len(slides)), seed + i)
        measured = np.flatnonzero(slide.measured)
        asked = np.flatnonzero(slide.measured[positions])
        size = np.log1p(slide.counts.sum(axis=1).A1)
        log = slide.log.astype(np.float64)
        scaled = unit(without(log[:, measured].toarray(), size))
        sought = unit(without(log[:, positions[asked]].toarray(), size))
        partners[np.ix_(asked, measured)] += len(size) * (sought.T @ scaled)
    return Reference(tuple(summaries.values()), seed), partners


def without(values, size):
    """Remove the linear effect of library size, and the mean."""
    size, values = size - size.mean(), values - values.mean(axis=0)
    return values - np.outer(size, size @ values / (size @ size))


def unit(values):
    norm = np.linalg.norm(values, axis=0)
    return values / np.where(norm > 1e-9, norm, np.inf)


def imputed(slide, model, genes):
    """Impute genes after they were removed: spots × genes, and the table of confidence."""
    lacking = slide[:, ~slide.var_names.isin(genes)].copy()
    table = sagefm.tl.impute(lacking, model, list(genes))
    return lacking.obsm["sagefm_imputed"][list(genes)].to_numpy(dtype=np.float64), table


def by_baselines(panel, reference, partners, positions, seed):
    """Predict genes that are removed from the whole slide by each baseline."""
    measured = np.flatnonzero(panel.measured)
    at = np.searchsorted(measured, positions)
    order = np.concatenate([at, np.setdiff1d(np.arange(len(measured)), at)])
    n_spots = len(panel.neighbors)
    masks = Masks(
        torch.from_numpy(order),
        torch.tensor([0, len(at), len(order)]),
        torch.tensor([[True, False]]).expand(n_spots, 2),
    )
    masked = MaskedSpots(panel, "slide", np.arange(n_spots), masks, positions)
    found = {
        method.name: method(masked).log1p
        for method in predictors.baselines(reference, masked, seed)
        if method.name in REFERENCES
    }
    usable = panel.measured.copy()
    usable[positions] = False
    partner = np.where(usable, partners, -np.inf).argmax(axis=1)
    found["best correlated other gene"] = panel.log[:, partner].toarray()
    found["best correlated other gene, mean of 15 spots"] = smooth(panel, partner)
    library = np.log1p(masked.library_size)[:, None]
    return found | {"library size": np.repeat(library, len(positions), axis=1)}


def smooth(panel, positions):
    operator = average(panel.neighbors, center=True, n_spots=len(panel.neighbors))
    return (operator @ panel.log[:, positions]).toarray()


def sums_of(truth, predicted, size, tiles):
    """Sum over each tile: an array per sum, tiles × genes."""
    each = [GeneSums.of(truth[tiles == t], predicted[tiles == t], size[tiles == t])
            for t in np.unique(tiles)]  # fmt: skip
    return [np.stack(values) for values in zip(*(vars(s).values() for s in each), strict=True)]


def correlations(sums, weights):
    """Correlate, plain and partial, over tiles with weights: draws × genes."""
    total = GeneSums(*(weights @ values for values in sums))
    return np.nan_to_num(total.pearson()), np.nan_to_num(total.depth_removed())


def table_of(sums, genes, design, seed):
    """Compare all methods; also a row per gene and method."""
    n_tiles = len(sums[VISIUM][0])
    found = {name: correlations(s, np.ones((1, n_tiles))) for name, s in sums.items()}
    drawn = {name: correlations(s, n_tiles * resampled(n_tiles, seed))[0]
             for name, s in sums.items()}  # fmt: skip
    by_gene = resampled(len(genes), seed)
    r = {name: values[0][0] for name, values in found.items()}
    partial = {name: values[1][0] for name, values in found.items()}
    clear = r[VISIUM] > CEILING
    lines = [
        f"{design}: {len(genes)} genes, of them {clear.sum()} with a ceiling above {CEILING}", "",
        "| method | r, all | r, clear | share of the ceiling | partial r, all | partial r, clear "
        "| model better | model minus this (over genes; over tiles) |", "|---" * 8 + "|",
    ]  # fmt: skip
    for name in r:
        gain = r[MODEL] - r[name]
        of_genes = interval(by_gene @ gain)
        of_tiles = interval((drawn[MODEL] - drawn[name]).mean(axis=1))
        medians = [np.median(values[rows]) for values in (r[name], partial[name])
                   for rows in (slice(None), clear)]  # fmt: skip
        cells = [f"{value:.3f}" for value in medians]
        cells.insert(2, f"{medians[1] / np.median(r[VISIUM][clear]):.0%}")
        cells += ["", ""] if name == MODEL else [
            f"{(gain > 0).mean():.0%}",
            f"{gain.mean():+.3f} ({of_genes[0]:+.3f} to {of_genes[1]:+.3f}; "
            f"{of_tiles[0]:+.3f} to {of_tiles[1]:+.3f})",
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rows = [pd.DataFrame({"design": design, "gene": genes, "method": name, "r": r[name],
                          "partial_r": partial[name]}) for name in r]  # fmt: skip
    return [*lines, ""], pd.concat(rows)


def calibration(tables):
    """Compare what each table of confidence says with the correlations `r` that were found."""
    lines = [
        "| | in the 80 % range | below | above | good, stated | good, found "
        "| p_good: stated, found (genes) |",
        "|---" * 7 + "|",
    ]
    for name, table in tables.items():
        r, p = table["r"], table["p_good"]
        below, above = (r < table["r_expected_low"]).mean(), (r > table["r_expected_high"]).mean()
        good, probably = r >= GOOD, p >= 0.5
        steps = [
            f"{p[rows].mean():.2f}, {good[rows].mean():.2f} ({rows.sum()})"
            for low, high in pairwise(STEPS)
            if (rows := (p >= low) & (p < high)).any()
        ]
        lines.append(
            f"| {name} | {1 - below - above:.0%} | {below:.0%} | {above:.0%} "
            f"| {p[probably].mean():.0%} of {probably.sum()} | {good[probably].mean():.0%} "
            f"| {'; '.join(steps)} |"
        )
    return lines


def predictions(slide, panel, models, genes, groups, learned_from, seed):
    """Predict all genes by every method, one group at a time; also the table of confidence."""
    reference, partners = learned_from
    positions, predicted, tables = models[MODEL].vocabulary.positions(genes), {}, []
    for group in groups:
        of_group = by_baselines(panel, reference, partners[group], positions[group], seed)
        for name, model in models.items():
            of_group[name], table = imputed(slide, model, [genes[i] for i in group])
            tables += [table] if name == MODEL else []
        for name in [*models, *of_group]:
            values = predicted.setdefault(name, np.empty((slide.n_obs, len(genes))))
            values[:, group] = of_group[name]
    predicted[VISIUM] = panel.log[:, positions].toarray()
    predicted[SMOOTHED] = smooth(panel, positions)
    return predicted, pd.concat(tables).loc[genes]


def compare(slide, cells, model, genes, learned_from, designs, seed):
    """Compare all methods in each design: lines of the report and a row per gene."""
    panel = PanelSlide.of(slide, model.vocabulary)
    counts, _ = pooled(slide, cells, list(cells.var_names), HALF_PITCH)
    size = np.log1p(counts.sum(axis=1))
    truth = np.log1p(counts[:, cells.var_names.get_indexer(genes)])
    tiles = areas_of(slide.obsm["spatial"], np.zeros(slide.n_obs, dtype=int))
    models = {
        MODEL: model,
        RANDOM: sagefm.SageFM.new(model.vocabulary, model.config, seed=seed),
    }
    lines, rows = [], []
    for design, groups in designs.items():
        predicted, table = predictions(slide, panel, models, genes, groups, learned_from, seed)
        sums = {name: sums_of(truth, values, size, tiles) for name, values in predicted.items()}
        of_methods, of_genes = table_of(sums, genes, design, seed)
        of_genes["p_good"] = np.tile(table["p_good"], len(sums))
        rows.append(of_genes)
        r = {
            f"against {name}": GeneSums.of(values, predicted[MODEL], size).pearson()
            for name, values in (("Visium", predicted[VISIUM]), ("Xenium", truth))
        }
        against = {name: table.assign(r=np.nan_to_num(values)) for name, values in r.items()}
        lines += [*of_methods, *calibration(against), ""]
    return lines, pd.concat(rows)


def ceilings(slide, cells):
    """Correlate measured with measured, by the radius around a spot."""
    shared = [gene for gene in cells.var_names if gene in slide.var_names]
    log, lines = np.log1p(slide[:, shared].X.toarray()), []
    for radius in (SPOT, HALF_PITCH):
        counts, n_cells = pooled(slide, cells, shared, radius)
        ones = np.zeros(slide.n_obs)
        r = np.nan_to_num(GeneSums.of(np.log1p(counts), log, ones).pearson())
        named = ", ".join(f"{gene} {r[shared.index(gene)]:.2f}" for gene in KNOWN)
        lines.append(f"Visium and Xenium within {radius} µm ({np.median(n_cells):.0f} cells): "
                     f"median r {np.median(r):.3f} of {len(shared)} genes; {named}")  # fmt: skip
    return [*lines, ""]


def options(script):
    """Get the folder of data, the model and the seed from the command line."""
    parser = argparse.ArgumentParser(usage=f"{script} DATA [--model FILE] [--seed S]")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    return chosen.data, sagefm.SageFM.load(chosen.model), chosen.seed


def main():
    data, model, seed = options("xenium.py")
    slides = training_slides(data, model)
    slide = sagefm.read(data / "slides" / f"{SLIDE}.h5ad")
    cells = ad.read_h5ad(data / "extras" / f"{CELLS}.h5ad")
    genes = [g for g in cells.var_names if g in slide.var_names and g in model.vocabulary]
    learned_from = learned(slides, model.vocabulary, genes, seed)
    order = np.random.default_rng(seed).permutation(len(genes))
    designs = {
        f"{GROUPS} groups, one removed at a time": np.array_split(order, GROUPS),
        "all removed together": [np.arange(len(genes))],
    }
    lines, rows = compare(slide, cells, model, genes, learned_from, designs, seed)
    OUT.mkdir(exist_ok=True)
    rows.to_csv(OUT / "xenium.csv", index=False)
    report("xenium", [f"{model!r}, seed {seed}", "", *ceilings(slide, cells), *lines])


if __name__ == "__main__":
    main()
