"""Find planted rare populations: recall in the top 2 %, compared with simpler methods.

    python benchmarks/bench_rare.py [--quick]

Simulates patients of a biology, trains the small recipe on four of them, and plants a population
of 1 % of the spots in another patient: scattered spots or one nest, with markers raised in half of
their counts. Then slides without a population: how many spots are listed beyond noise? Writes
benchmarks/out/rare.csv. The score was chosen on the biologies 10 to 12, which are not used here.
"""

import sys

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

import sagefm
from _common import OUT, report
from sagefm.evaluate import pca
from sagefm.pretrain import Recipe

FIRST, N_BIOLOGIES, N_SLIDES = 100, 4, 1
N_SPOTS, N_PATIENTS, EPOCHS = 1000, 4, 15
SHARE, LISTED = 0.01, 0.02
DIFFICULTIES = ((20, 10), (40, 5), (40, 10), (40, 20))
"""Markers, and how many times as much rare cells express them."""

COLUMNS = ["biology", "slide", "layout", "planted", "method", "recall", "beyond_noise"]


def simulated(biology, patient, n_spots=N_SPOTS):
    name = f"p{patient}"
    return sagefm.pp.simulate(
        n_spots, seed=1000 * biology + patient, biology_seed=biology, patient=name, slide=name
    )


def trained(biology):
    slides = {f"p{i}": simulated(biology, i, 600) for i in range(N_PATIENTS)}
    recipe = Recipe.load("small", [f"train.max_epochs={EPOCHS}", "data.genes=1400"])
    return sagefm.pretrain.fit(slides, recipe, progress=False).model


def recall(score, truth):
    """Share of the planted spots among the highest 2 % of all."""
    top = np.argsort(-score, kind="stable")[: round(LISTED * len(score))]
    return truth[top].sum() / truth.sum()


def from_neighbors(embedding, near):
    """Distance of each spot to the mean of its 14 nearest on the tissue."""
    return np.linalg.norm(embedding - embedding[near[:, 1:]].mean(axis=1), axis=1)


def scores(slide, model):
    """Score every spot in several ways; also how many spots ours calls beyond noise."""
    near = sagefm.pp.nearest(slide.obsm["spatial"])
    components = pca(slide)
    gaps, _ = NearestNeighbors(n_neighbors=5).fit(components).kneighbors()
    found, beyond = {}, {}
    for name, used in (("sagefm.tl.rarity._rare", model), ("the same without a model", None)):
        held = slide.copy()
        sagefm.tl.rare(held, used)
        found[name] = held.obs["sagefm_rare_score"].to_numpy()
        beyond[name] = held.uns["sagefm"]["rare"]["n_beyond_noise"]
    found |= {
        "misfit of the model alone": misfit(slide, model),
        "embedding, from neighbors": from_neighbors(model.embed(slide), near),
        "PCA, to the 5th nearest": gaps[:, -1],
        "PCA, from neighbors": from_neighbors(components, near),
    }
    return found, beyond


def misfit(slide, model):
    """Mean squared residual of each spot, whoever shares it."""
    from sagefm.tl.rarity._counts import count, expect

    counted = count(slide, model, None, None)
    seen = expect(counted, np.arange(slide.n_obs), np.random.default_rng(0))
    return np.square(seen.residuals()).mean(axis=1)


def main():
    quick = "--quick" in sys.argv
    rows = []
    OUT.mkdir(exist_ok=True)
    for biology in range(FIRST, FIRST + (1 if quick else N_BIOLOGIES)):
        model = trained(biology)
        for number in range(1 if quick else N_SLIDES):
            whole = simulated(biology, N_PATIENTS + number)
            for name, n in scores(whole, model)[1].items():
                rows.append((biology, number, "none", "", name, np.nan, n))
            for scattered in (True, False):
                for n_genes, fold in ((40, 10),) if quick else DIFFICULTIES:
                    slide = sagefm.pp.plant(
                        whole, SHARE, n_genes=n_genes, fold=fold, scattered=scattered, seed=number
                    )
                    found, beyond = scores(slide, model)
                    truth = slide.obs["planted"].to_numpy()
                    layout = "scattered" if scattered else "nest"
                    for name, score in found.items():
                        hit = recall(score, truth)
                        at = f"{n_genes} genes × {fold}"
                        rows.append((biology, number, layout, at, name, hit, beyond.get(name)))
        print(f"biology {biology}: done", file=sys.stderr, flush=True)
        table = pd.DataFrame(rows, columns=COLUMNS)
        table.to_csv(OUT / "rare.csv", index=False)
    report("rare", lines(table))


def lines(table):
    """Mean recall (least to most) of each method at each difficulty; false alarms below."""
    found = []
    for layout, part in table[table["layout"] != "none"].groupby("layout", sort=False):
        kinds = list(part["planted"].unique())
        found += ["", f"| {layout} | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
        for method, own in part.groupby("method", sort=False):
            cells = [
                f"{r.mean():.2f} ({r.min():.1f} to {r.max():.1f})"
                for r in (own.loc[own["planted"] == kind, "recall"] for kind in kinds)
            ]
            found.append(f"| {method} | {' | '.join(cells)} |")
    found += ["", "| nothing planted: spots beyond noise | per slide |", "|---|---|"]
    for method, own in table[table["layout"] == "none"].groupby("method", sort=False):
        found.append(f"| {method} | {', '.join(map(str, own['beyond_noise'].astype(int)))} |")
    return found


if __name__ == "__main__":
    main()
