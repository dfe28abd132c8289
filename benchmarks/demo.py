"""The comparisons of `sagefm demo` for ten seeds: ten draws of patients, tissue and noise.

    python benchmarks/demo.py [--seeds 10] [--adapted 2]

Each seed simulates cortex and a breast tumor of two new patients each. For every method the mean
and the standard deviation over the seeds are given, and in how many the method of the package that
is recommended is better than the best simple one of that seed and than random weights. For the
first seeds (--adapted), masked genes are also predicted by weights that were adapted to the slide,
trained and random alike, which takes longer and which the demo leaves out. Writes
benchmarks/out/demo.csv (every value) and demo.txt.
"""

import argparse

import pandas as pd

import sagefm
from _common import OUT, report
from sagefm.demo import compare, compare_labels
from sagefm.demo.comparisons import random_weights
from sagefm.demo.story import DEPTHS, GENES, REGION, SPOTS
from sagefm.report.recovery import MODEL, recover


def adapted(slide, model, seed):
    """Compute the error on masked genes after adaptation."""
    found = recover(
        slide, model, model.prepare(slide), mask_fraction=0.2, seed=seed, layer=None,
        slide_key=None, adapt=True,
    )  # fmt: skip
    return found.methods.loc[MODEL, "error"]


def run(seed, model, adapt):
    """Collect all values of a seed."""
    rows = []
    for tissue, genes in GENES.items():
        slide, other = (
            sagefm.pp.simulate_tissue(
                tissue, SPOTS, patient=2 * seed + i, seed=seed, depth=DEPTHS[tissue], image=False
            )
            for i in range(2)
        )
        found = [
            *compare(slide, model, genes, label_key=REGION, reference=other, seed=seed),
            compare_labels(slide, other, model, REGION, seed),
        ]
        for each in found:
            for method, row in each.table.iterrows():
                rows.append((tissue, each.question, method, seed, row["value"]))
            if "inside" in each.details:
                rows.append((tissue, each.question, "inside the interval", seed,
                             each.details["inside"].mean()))  # fmt: skip
                spearman = each.details["r_expected"].corr(each.details["r_true"], "spearman")
                rows.append((tissue, each.question, "expected against true (Spearman)", seed,
                             spearman))  # fmt: skip
            baseline = each.baseline
            sign = -1 if each.lower else 1
            for name, against in (("best simple", baseline), ("random weights", each.random)):
                rows.append((tissue, each.question, f"wins against {name}", seed,
                             float(sign * (each.ours[1] - against[1]) > 0)))  # fmt: skip
        both = (("default", model), ("random", random_weights(model, seed)))
        for name, weights in both if adapt else ():
            rows.append((tissue, "Masked genes", f"{name}, adapted", seed,
                         adapted(slide, weights, seed)))  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--adapted", type=int, default=2)
    given = parser.parse_args()
    model = sagefm.SageFM.load("default")
    rows = []
    for seed in range(given.seeds):
        rows += run(seed, model, seed < given.adapted)
        print(f"seed {seed}", flush=True)
        table = pd.DataFrame(rows, columns=["tissue", "question", "method", "seed", "value"])
        out = table.groupby(["tissue", "question", "method"], sort=False)["value"]
        OUT.mkdir(exist_ok=True)
        table.to_csv(OUT / "demo.csv", index=False)
    summary = out.agg(["mean", "std", "count"]).round(3)
    report("demo", summary.to_string().splitlines())


if __name__ == "__main__":
    main()
