"""Find domains on labeled slides: the consensus, each of its views, and models as one more view.

    python benchmarks/domains.py [--folds FOLDER] [--only NAME ...]

Views and the numbers of clusters were chosen on training and validation slides. Every method is
told the number of labels. Single views and embeddings: 20 components, a Gaussian mixture with
shared covariance, best of 50 starts. FOLDER holds models that have not seen a patient, as
`benchmarks/folds.py train` writes them: beside each, random weights of the same network. Adjusted
Rand index, mean over two seeds; then the agreement of the two, and the seconds of the consensus.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

import sagefm
from _common import OUT, SHARED, report, require_data
from sagefm.tl._views import VIEWS

FOLD = {
    "dlpfc_151510": 0, "her2st_B1": 4, "her2st_C1": 0, "her2st_D1": 1, "her2st_E1": 2,
    "her2st_F1": 3, "pdac_A_ST1": 2, **{f"heartdev_{i}": 4 for i in range(1, 7)},
    "dlpfc_151673": 1, "dlpfc_151674": 1, "her2st_A1": 3,
}  # fmt: skip
TEST = ("dlpfc_151673", "dlpfc_151674", "her2st_A1")
TOGETHER = {
    "two sections of one cortex": ("dlpfc_151673", "dlpfc_151674"),
    "two cortex donors": ("dlpfc_151510", "dlpfc_151673"),
    "six heart sections": tuple(f"heartdev_{i}" for i in range(1, 7)),
    "five breast patients": tuple(f"her2st_{patient}1" for patient in "BCDEF"),
}
SEEDS = (0, 1)


def labels_of(slide):
    return slide.obs["label"].astype(object).fillna("").to_numpy(dtype=str)


def rand(slide, key="sagefm_domain"):
    truth = labels_of(slide)
    known = truth != ""
    return adjusted_rand_score(truth[known], slide.obs[key].astype(str)[known])


def score(slide, name, n, **options):
    """Find domains with two seeds: a row of the table."""
    found, scores, seconds = [], [], []
    for seed in SEEDS:
        start = time.perf_counter()
        sagefm.tl.domains(slide, n, seed=seed, **options)
        seconds.append(time.perf_counter() - start)
        scores.append(rand(slide))
        found.append(slide.obs["sagefm_domain"].astype(str).to_numpy())
    return {
        "method": name, "ari": np.mean(scores), "seeds": adjusted_rand_score(*found),
        "seconds": np.min(seconds),
    }  # fmt: skip


def single(name, folds):
    """Score all methods on one slide."""
    slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
    n = len(set(labels_of(slide)) - {""})
    rows = [score(slide, "consensus", n)]
    rows += [score(slide, f"view {view}", n, method=view) for view in VIEWS]
    if folds is not None:
        model = sagefm.SageFM.load(folds / f"patients_{FOLD[name]}_seed0.safetensors")
        untrained = sagefm.SageFM.new(model.vocabulary, model.config, seed=1)
        for kind, one in (("model", model), ("random weights", untrained)):
            sagefm.tl.embed(slide, one)
            rows.append(score(slide, kind, n, method="gmm"))
            rows.append(score(slide, f"consensus and {kind}", n, use_rep="X_sagefm"))
    sagefm.tl.domains(slide)
    settings = slide.uns["sagefm"]["domains"]
    others = settings["stability"].nlargest(3, "score")["n_domains"].tolist()
    chosen = {"slide": name, "labels": n, "chosen": settings["n_domains"], "best three": others,
              "ari": rand(slide)}  # fmt: skip
    return pd.DataFrame(rows).assign(slide=name), chosen


def together(title, names):
    slides = {name: sagefm.read(SHARED / "slides" / f"{name}.h5ad") for name in names}
    n = len({label for slide in slides.values() for label in labels_of(slide)} - {""})
    rows = []
    for centered in (None, True, False):
        start = time.perf_counter()
        sagefm.tl.domains(slides, n, centered=centered)
        seconds = time.perf_counter() - start
        chosen = next(iter(slides.values())).uns["sagefm"]["domains"]["centered"]
        every = pd.concat([slide.obs[["label", "sagefm_domain"]] for slide in slides.values()])
        every = every.dropna().astype(str)
        rows.append({
            "slides": title, "centered": {None: f"chosen: {bool(chosen)}"}.get(centered, centered),
            "mean": np.mean([rand(slide) for slide in slides.values()]),
            "all": adjusted_rand_score(every["label"], every["sagefm_domain"]),
            "seconds": seconds,
        })  # fmt: skip
    return rows


def tissue(name):
    return {"dlpfc": "cortex", "her2s": "breast", "pdac_": "pancreas"}.get(name[:5], "heart")


def markdown(table):
    cells = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return ["| " + " | ".join(row) + " |" for row in rows]


def main():
    require_data()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=Path)
    parser.add_argument("--only", nargs="+", default=list(FOLD))
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    found = [single(name, options.folds) for name in options.only]
    scores = pd.concat([table for table, _ in found])
    scores.to_csv(OUT / "domains.csv", index=False)
    scores["tissue"] = ["test: " * (name in TEST) + tissue(name) for name in scores["slide"]]
    wide = scores.groupby(["method", "tissue"], sort=False)["ari"].mean().unstack()
    chosen_on = [column for column in wide if not column.startswith("test")]
    wide.insert(0, "mean of tissues", wide[chosen_on].mean(axis=1))
    wide["seeds"] = scores.groupby("method", sort=False)["seeds"].mean()
    numbers = pd.DataFrame([chosen for _, chosen in found])
    joined = [
        row for title, names in TOGETHER.items() if set(names) <= set(options.only)
        for row in together(title, names)
    ]  # fmt: skip
    seconds = scores[scores["method"] == "consensus"].set_index("slide")["seconds"]
    tables = [wide.reset_index(), numbers, pd.DataFrame(joined), seconds.reset_index()]
    lines = []
    for table in tables:
        lines += [*markdown(table), ""]
    report("domains", lines)


if __name__ == "__main__":
    main()
