"""Find domains on labeled brain slides: models compared with methods that need no training.

    python benchmarks/domains.py breast=breast0.safetensors,breast1.safetensors ...

Each argument names a kind of model and its files, one per training seed. Seven domains (six
cortical layers and white matter) for every method: the 20 leading principal components, clustered
five times by each of three methods. Writes a row per clustering and a plot per slide to
benchmarks/out. docs/RESULTS.md says how its models were trained.
"""

import sys

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

import sagefm
from _common import OUT, SHARED, report, require_data
from sagefm.evaluate import domain_recovery, pca

SLIDES = ("dlpfc_151673", "dlpfc_151674")
METHODS = ("gmm", "kmeans", "leiden")


def embeddings(slide, kinds):
    """Name and training seed of each embedding of a slide; training-free ones have no seed."""
    found = {}
    for kind, models in kinds.items():
        for seed, model in enumerate(models):
            found[f"sagefm, {kind}", seed] = model.embed(slide)
            untrained = sagefm.SageFM.new(model.vocabulary, model.config, seed=seed)
            found["sagefm, random weights", seed] = untrained.embed(slide)
    found["PCA", 0] = pca(slide)
    for k in (7, 15, 19):
        found[f"PCA of {k}-spot means", 0] = pca(slide, smooth=k)
        every = pca(slide, smooth=k, n_genes=slide.n_vars)
        found[f"PCA of {k}-spot means, all genes", 0] = every
    return found


def depth_in_first_component(slide, embedding):
    """Share of the variance of log depth that the first principal component explains."""
    first = PCA(1, random_state=0).fit_transform(embedding)[:, 0]
    return np.corrcoef(first, np.log1p(np.asarray(slide.X.sum(axis=1)).ravel()))[0, 1] ** 2


def draw(slide, found, save):
    shown = {"label": "pathologist's layers"}
    for name, seed in found:
        if seed == 0 and (name == "PCA" or "15" in name or "sagefm" in name):
            slide.obsm[name] = found[name, seed]
            sagefm.tl.domains(slide, 7, use_rep=name, key_added=f"found by {name}")
            shown[f"found by {name}"] = name
    sagefm.pl.spatial(slide, list(shown), title=list(shown.values()), save=save)


def main():
    require_data()
    kinds = {
        kind: [sagefm.SageFM.load(path) for path in paths.split(",")]
        for kind, paths in (argument.split("=") for argument in sys.argv[1:])
    }
    OUT.mkdir(exist_ok=True)
    tables = []
    for slide_name in SLIDES:
        slide = sagefm.read(SHARED / "slides" / f"{slide_name}.h5ad")
        found = embeddings(slide, kinds)
        for (name, seed), embedding in found.items():
            table = domain_recovery(slide, "label", {name: embedding}, methods=METHODS)
            depth = depth_in_first_component(slide, embedding)
            tables.append(table.assign(slide=slide_name, training_seed=seed, depth=depth))
        draw(slide, found, OUT / f"domains_{slide_name}.png")
    scores = pd.concat(tables)
    scores.to_csv(OUT / "domains.csv", index=False)
    report("domains", table_of(scores))


def table_of(scores):
    """Mean ARI over slides and seeds, and its spread over seeds within a slide."""
    by = ["embedding", "method"]
    mean = scores.groupby(by, sort=False)["ari"].mean().unstack()
    spread = scores.groupby([*by, "slide"], sort=False)["ari"].std().groupby(by).mean().unstack()
    depth = scores.groupby("embedding", sort=False)["depth"].mean()
    lines = [
        f"| embedding | {' | '.join(METHODS)} | depth in component 1 |",
        "|---" * (len(METHODS) + 2) + "|",
    ]
    for name in mean.index:
        cells = [f"{mean.loc[name, m]:.3f} ({spread.loc[name, m]:.3f})" for m in METHODS]
        lines.append(f"| {name} | {' | '.join(cells)} | {depth[name]:.2f} |")
    return lines


if __name__ == "__main__":
    if not all("=" in argument for argument in sys.argv[1:]):
        sys.exit("usage: python benchmarks/domains.py NAME=MODEL[,MODEL...] ...")
    main()
