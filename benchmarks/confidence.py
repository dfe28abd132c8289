"""Check what imputation says about genes that a slide lacks, on patients the model has not seen.

    python benchmarks/confidence.py DATA [--model FILE] [--seed S]

DATA is the folder with `slides.csv`, `slides` and `extras`. Genes are removed from a section of
each patient that the model was not trained on, and imputed: a tenth of all genes at random, the
markers of a Xenium panel for breast, or all genes but those of an immunology panel (1,000 of each
at most are imputed). Counted is how many of their correlations with the counts lie in the range
that the table of confidence gives, and how many of the genes that are probably good (r of 0.3 at
least) are. The section with Xenium cells is left out: it is the test, see xenium.py.
"""

import sys

import anndata as ad
import numpy as np
import pandas as pd

import sagefm
from _common import report
from sagefm.pp.pseudonyms import is_among
from sagefm.stats.genes import GeneSums
from xenium import CELLS, SLIDE, calibration, imputed, options

PANEL = "breast_10x_targeted_immunology"
LEAST, MOST = 100, 1000
"""Genes to impute, and at least as many to impute them from."""


def unseen(data, model):
    """Name the first section of each patient that the model was not trained on."""
    table = pd.read_csv(data / "slides.csv", index_col="slide").drop(SLIDE)
    recorded = model.provenance.get("slides", [])
    seen = np.array([is_among(name, recorded) for name in table.index])
    patients = set(table["patient"][seen])
    left = table[~table["patient"].isin(patients)].drop_duplicates("patient")
    return list(left.index) or sys.exit("the model was trained on every patient; give a fold's")


def removed(slide, model, markers, panel, seed):
    """Name the genes to remove in each scenario."""
    genes = np.array([gene for gene in slide.var_names if gene in model.vocabulary])
    drawn = np.random.default_rng(seed).permutation(len(genes))[: len(genes) // 10]
    chosen = {
        "a tenth of the genes": genes[np.sort(drawn)],
        "markers": genes[np.isin(genes, markers)],
        "all but a panel": genes[~np.isin(genes, panel)],
    }
    return {name: each for name, each in chosen.items()
            if min(len(each), len(genes) - len(each)) >= LEAST}  # fmt: skip


def measured(slide, model, genes, seed):
    """Impute genes after all were removed: the table, with their correlation with the counts."""
    left = slide[:, ~slide.var_names.isin(genes)]
    asked = np.random.default_rng(seed).permutation(genes)[:MOST]
    predicted, table = imputed(left, model, asked)
    truth = np.log1p(slide[:, asked].X.toarray())
    r = GeneSums.of(truth, predicted, np.zeros(slide.n_obs)).pearson()
    return table.assign(r=r).dropna(subset="r")


def main():
    data, model, seed = options("confidence.py")
    markers = ad.read_h5ad(data / "extras" / f"{CELLS}.h5ad", backed="r").var_names
    panel = ad.read_h5ad(data / "slides" / f"{PANEL}.h5ad", backed="r").var_names
    found = {}
    for name in unseen(data, model):
        slide = sagefm.read(data / "slides" / f"{name}.h5ad")
        for scenario, genes in removed(slide, model, markers, panel, seed).items():
            found.setdefault(scenario, {})[name] = measured(slide, model, genes, seed)
    lines = [f"{model!r}, seed {seed}", ""]
    for scenario, tables in found.items():
        every = pd.concat(tables.values())
        lines += [f"removed: {scenario}", "", *calibration({**tables, "all": every}), ""]
    report("confidence", lines)


if __name__ == "__main__":
    main()
