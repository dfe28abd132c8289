"""Pearson's r of masked genes on patients that the model has not seen: the number of the README.

    python benchmarks/masked_r.py FOLDS

FOLDS is the folder of `benchmarks/folds.py train` (kind patients, seed 0). One section of each of
the 20 patients, at most 600 spots (the same for all methods), 20 % of the measured genes of each
spot masked, genes that are detected in more than 10 % of the spots: the median over genes of the
correlation of prediction and log1p counts, and the mean squared error. Random weights are those of
the same network, adapted to the slide in the same way. Writes benchmarks/out/masked_r.txt.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import sagefm
from _common import OUT, SHARED, report, require_data
from folds import folds
from sagefm.report.recovery import MODEL, recover

SPOTS = 600


def sections():
    """List the first section of each patient, and the fold that leaves the patient out."""
    slides = pd.read_csv(SHARED / "slides.csv")
    fold_of = {p: f for f, held in folds("patients", slides).items() for p in held}
    first = slides.drop_duplicates("patient")
    return [(row.slide, fold_of[row.patient]) for row in first.itertuples()]


def score(slide, model, adapt):
    found = recover(
        slide, model, model.prepare(slide), mask_fraction=0.2, seed=0, layer=None, slide_key=None,
        adapt=adapt,
    )  # fmt: skip
    return found.methods


def main():
    require_data()
    folder, rows = Path(sys.argv[1]), []
    for name, fold in sections():
        slide = sagefm.read(SHARED / "slides" / f"{name}.h5ad")
        places = slide.obsm["spatial"]
        middle = np.linalg.norm(places - np.median(places, axis=0), axis=1)
        slide = slide[np.sort(np.argsort(middle, kind="stable")[:SPOTS])].copy()
        model = sagefm.SageFM.load(folder / f"patients_{fold}_seed0.safetensors")
        random = sagefm.SageFM.new(model.vocabulary, model.config, seed=0)
        found = score(slide, model, True).rename(index={MODEL: "model, adapted"})
        found.loc["model"] = score(slide, model, False).loc[MODEL]
        found.loc["random weights, adapted"] = score(slide, random, True).loc[MODEL]
        rows.append(found.assign(section=name).reset_index())
        print(name, found.round(3).to_dict("index"), flush=True)
        OUT.mkdir(exist_ok=True)
        pd.concat(rows).to_csv(OUT / "masked_r.csv", index=False)
    table = pd.concat(rows)
    r = table.pivot(index="section", columns="method", values="r")
    others = r.drop(columns=[name for name in r if "model" in name or "random" in name])
    means = table.groupby("method")[["r", "error"]].agg(["mean", "median", "std"]).round(3)
    lines = [
        *means.to_string().splitlines(),
        f"adapted above the best simple method of each section: "
        f"{(r['model, adapted'] > others.max(axis=1)).sum()} of {len(r)}; above random weights, "
        f"adapted: {(r['model, adapted'] > r['random weights, adapted']).sum()}",
        f"best simple method of each section: mean r {others.max(axis=1).mean():.3f}",
    ]
    report("masked_r", lines)


if __name__ == "__main__":
    main()
