"""Perturb slides with planted couplings, and test whether trained models rank them first.

    python benchmarks/couplings.py [published] [context] [TRUTHS NULLS]

Simulates patients that share a biology (20 couplings, and as many control pairs with the same
expression but no coupling), trains a small network of each kind on them, and perturbs slides of
unseen patients. Then the same without any coupling: how many of the pairs pass q < 0.05, and are
the p values uniform? TRUTHS and NULLS are numbers of biologies, 5 and 20 by default. All results
are kept in benchmarks/out/couplings.csv, with a plot per network.
"""

import sys
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import sagefm
from _common import OUT, report
from sagefm.pp.simulate import PAIRS, simulate
from sagefm.pretrain import Recipe

N_PAIRS, N_GENES, N_PATIENTS, N_UNSEEN, N_SPOTS = 20, 600, 6, 3, 1000
RECIPES = {
    "published": ("small", ["train.max_epochs=40", "train.patience=20"]),
    "context": (
        "context",
        ["network.widths=[64,128,128,32]", "train.max_epochs=40", "train.patience=20"],
    ),
}
FIRST = 100  # the biologies before were looked at while the nulls were chosen


def genes():
    """Name the known pairs, and other genes up to their number."""
    paired = [gene for pair in PAIRS for gene in pair]
    others = [gene for gene in simulate(100).var_names if gene not in paired]
    return [*paired, *others][:N_GENES]


def world(biology_seed, strength, networks):
    """Train on some patients and perturb others: a row per pair and network."""
    make = partial(
        simulate, N_SPOTS, genes=genes(), n_couplings=N_PAIRS, coupling_strength=strength,
        biology_seed=biology_seed,
    )  # fmt: skip
    names = [f"patient {i}" for i in range(N_PATIENTS + N_UNSEEN)]
    slides = {
        name: make(seed=1000 * biology_seed + i, patient=name) for i, name in enumerate(names)
    }
    unseen = {name: slides.pop(name) for name in names[N_PATIENTS:]}
    truth = next(iter(unseen.values())).uns["simulation"]["couplings"]
    tables = []
    for network in networks:
        name, settings = RECIPES[network]
        own = [f"train.seed={biology_seed}", f"data.genes={N_GENES}",
               f'data.validation=["{names[N_PATIENTS - 1]}"]']  # fmt: skip
        recipe = Recipe.load(name, [*settings, *own])
        start = time.perf_counter()
        result = sagefm.pretrain.fit(slides, recipe, progress=False)
        seconds = time.perf_counter() - start
        found = sagefm.tl.perturb(unseen, result.model, truth[["ligand", "target"]])
        found = found.merge(truth, on=["ligand", "target"], how="left")
        tables.append(found.assign(network=network, seconds=seconds))
        loss = result.history["validation_loss"].min()
        line = (
            f"strength {strength}, biology {biology_seed}, {network}: {loss:.4f}, {seconds:.0f} s"
        )
        print(line, file=sys.stderr, flush=True)
    return pd.concat(tables).assign(biology=biology_seed, coupling_strength=strength)


def auroc(table, column):
    return roc_auc_score(table["strength"] > 0, table[column])


def main():
    networks = [word for word in sys.argv[1:] if word in RECIPES] or list(RECIPES)
    n_truths, n_nulls = [int(word) for word in sys.argv[1:] if word.isdigit()] or (5, 20)
    OUT.mkdir(exist_ok=True)
    tables = []
    for strength, n in ((1.0, n_truths), (0.0, n_nulls)):
        for seed in range(FIRST, FIRST + n):
            tables.append(world(seed, strength, networks))
    everything = pd.concat(tables, ignore_index=True)
    everything.to_csv(OUT / "couplings.csv", index=False)
    lines = []
    for network, own in everything.groupby("network", sort=False):
        lines += [f"{network}:", "", *lines_of(own), ""]
    report("couplings", lines)


def lines_of(table):
    """Say how one network ranks the pairs, and how many pass; draws its p values."""
    planted = table[table["coupling_strength"] > 0]
    none = table[table["coupling_strength"] == 0]
    nothing = (
        [
            f"Nothing coupled, {none['biology'].nunique()} simulations of {2 * N_PAIRS} pairs: "
            f"{(none['q'] < 0.05).mean():.1%} pass q < 0.05, {(none['p'] < 0.05).mean():.1%} have "
            "p < 0.05."
        ]
        if len(none)
        else []
    )
    lines = ["| ranked by | AUROC, mean (least to most) |", "|---|---|"]
    for column in ("effect", "slope", "z", "z_reversed", "z_components", "effect_shuffled"):
        scores = [auroc(one, column) for _, one in planted.groupby("biology")]
        low, high = min(scores), max(scores)
        lines.append(f"| {column} | {np.mean(scores):.3f} ({low:.3f} to {high:.3f}) |")
    coupled = planted["strength"] > 0
    found = planted["q"] < 0.05
    means = planted[coupled][["z", "z_reversed"]].mean()
    draw(planted, none)
    return [
        *lines,
        "",
        f"{N_PAIRS} coupled and {N_PAIRS} control pairs, {planted['biology'].nunique()} biologies: "
        f"{found[coupled].mean():.1%} of the coupled and {found[~coupled].mean():.1%} of the "
        f"control pairs pass q < 0.05. Mean z of the coupled {means.iloc[0]:.2f}, reversed "
        f"{means.iloc[1]:.2f}.",
        *nothing,
        f"Training took {table['seconds'].median():.0f} s (median).",
    ]


def draw(planted, none):
    """Draw the p values of coupled, control and null pairs against the uniform distribution."""
    _, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    groups = {
        "coupled": planted.loc[planted["strength"] > 0, "p"],
        "controls beside coupled pairs": planted.loc[planted["strength"] == 0, "p"],
        "nothing coupled": none["p"],
    }
    for name, p in groups.items():
        p = np.sort(p.dropna())
        ax.step(p, (np.arange(len(p)) + 1) / len(p), label=f"{name} ({len(p)})", where="post")
    ax.plot([0, 1], [0, 1], color="gray", ls="--", lw=0.7, label="uniform")
    ax.set(xlabel="p", ylabel="share of pairs with at most this p", xlim=(0, 1), ylim=(0, 1.01))
    ax.legend(frameon=False, fontsize=7)
    plt.savefig(OUT / f"couplings_{planted['network'].iloc[0]}.png", dpi=150)
    plt.close()


if __name__ == "__main__":
    main()
