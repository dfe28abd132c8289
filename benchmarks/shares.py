"""Compare the errors in scorecards with those of the best method that needs no training.

    sagefm evaluate --protocol recovery --protocol imputation … -o CARD
    python benchmarks/shares.py CARD [CARD ...]

Recovery: for each tissue the column share_left, the error above counting noise as a fraction of
that of the best method that learns from no other slide; the correlation with library size removed;
and the fraction of frequent genes with a smaller error than the neighbor mean. Imputation, genes
masked in the center and all its neighbors: the fraction of the spatially variable genes (the
neighbor mean correlates with them with r of 0.05 at least, library size removed) with a smaller
error than slide profile × library size.
"""

import sys
from pathlib import Path

import pandas as pd

GROUPS = {"dlpfc": "cortex", "her2st": "breast", "hcc": "liver"}
RANDOM, AROUND = "random genes of the center", "random genes missing from center and neighbors"
VARIES = 0.05


def read(cards, protocol, name):
    """Read a table of a protocol from the first card that has it."""
    for card in cards:
        path = card / protocol / f"{name}.csv"
        if path.exists():
            return pd.read_csv(path)
    return None


def by_tissue(table, column):
    """Average over the slides of a tissue: methods × tissues."""
    tissue = table["slide"].str.split("_").str[0].map(GROUPS)
    return table.assign(tissue=tissue).pivot_table(
        index="method", columns="tissue", values=column, aggfunc="mean"
    )


def main():
    cards = [Path(word) for word in sys.argv[1:]] or sys.exit(__doc__)
    scores, genes = (read(cards, "recovery", name) for name in ("recovery", "recovery_genes"))
    pd.set_option("display.width", 160, "display.max_columns", 20)
    if scores is not None:
        own = scores[scores["task"] == RANDOM]
        print("share left of the best training-free method's excess:")
        print(by_tissue(own, "share_left").sort_values("breast").round(3).to_string())
        print("the same, slide by slide:")
        share = own.pivot(index="method", columns="slide", values="share_left")
        print(share.round(3).T.to_string())
        for least in (10, 30):
            print(f"r, depth removed, genes in > {least} % of the spots:")
            found = by_tissue(own, f"r_depth_removed_{least}")
            print(found.sort_values("breast", ascending=False).round(3).to_string())
    if genes is not None:
        often = genes[(genes["task"] == RANDOM) & (genes["detected"] > 0.3)]
        errors = often.pivot(index="gene", columns="method", values="mse")
        better = errors.lt(errors["neighbor mean"], axis=0).mean()
        print(f"{len(errors):,} genes in > 30 %; share with a smaller error than neighbor mean:")
        print(better.sort_values(ascending=False).round(3).to_string())
    imputed = read(cards, "imputation", "imputation_genes")
    if imputed is not None and genes is not None:
        near = genes[(genes["task"] == RANDOM) & (genes["method"] == "neighbor mean")]
        varying = near.loc[near["r_depth_removed"] >= VARIES, "gene"]
        errors = imputed[imputed["task"] == AROUND].pivot(
            index="gene", columns="method", values="mse"
        )
        errors = errors.loc[errors.index.intersection(varying)]
        better = errors.lt(errors["slide profile × library size"], axis=0).mean()
        print(f"{len(errors):,} genes vary in space; share with a smaller error than the slide's:")
        print(better.sort_values(ascending=False).round(3).to_string())


if __name__ == "__main__":
    main()
