"""Tissue domains on the labeled brain slides: a model beside what needs no training.

    sagefm pretrain ../shared/data/slides/her2st_[B-F]*.h5ad ../shared/data/slides/stahl*.h5ad \
        ../shared/data/slides/breastDCIS*.h5ad --recipe small \
        --set 'data.validation=["her2st_B"]' -o breast.safetensors
    python benchmarks/domains.py breast.safetensors

Seven domains (six cortical layers and white matter) for every method: the 20 leading principal
components, clustered five times. Writes a row per clustering and a picture to benchmarks/out.
"""

import sys

import pandas as pd

import sagefm
from _common import OUT, SHARED, report, require_data
from sagefm.evaluate import domain_recovery, pca

SLIDES = ("dlpfc_151673", "dlpfc_151674")
METHODS = ("gmm", "kmeans", "leiden")


def embeddings(slide, model):
    untrained = sagefm.SageFM.new(model.vocabulary, model.config, seed=0)
    smoothed = {f"PCA of {k}-spot means": pca(slide, smooth=k) for k in (7, 15, 19)}
    return {
        "sagefm": model.embed(slide),
        "sagefm, random weights": untrained.embed(slide),
        "PCA": pca(slide),
        **smoothed,
    }


def draw(slide, found, save):
    shown = {"label": "pathologist's layers"}
    for name in ("sagefm", "PCA", "PCA of 15-spot means"):
        slide.obsm[name] = found[name]
        sagefm.tl.domains(slide, 7, use_rep=name, key_added=f"found by {name}")
        shown[f"found by {name}"] = name
    sagefm.pl.spatial(slide, list(shown), title=list(shown.values()), save=save)


def main():
    require_data()
    model = sagefm.SageFM.load(sys.argv[1])
    OUT.mkdir(exist_ok=True)
    tables = []
    for name in SLIDES:
        slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
        found = embeddings(slide, model)
        table = domain_recovery(slide, "label", found, methods=METHODS)
        tables.append(table.assign(slide=name))
        draw(slide, found, OUT / f"domains_{name}.png")
    scores = pd.concat(tables)
    scores.to_csv(OUT / "domains.csv", index=False)
    by = ["embedding", "method"]
    mean = scores.groupby(by, sort=False)["ari"].mean().unstack()
    spread = scores.groupby([*by, "slide"], sort=False)["ari"].std().groupby(by).mean().unstack()
    lines = [f"{model!s:<40} {model.provenance.get('weights')}"]
    lines += [
        f"| adjusted Rand index, mean (sd over 5 seeds) | {' | '.join(METHODS)} |",
        "|---" * 4 + "|",
    ]
    for name in mean.index:
        cells = [f"{mean.loc[name, m]:.3f} ({spread.loc[name, m]:.3f})" for m in METHODS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    report("domains", lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/domains.py MODEL")
    main()
