"""Draw docs/img/perturbation_identity.png: why forward and reversed are the same number.

python docs/img/perturbation_identity.py
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import RegularPolygon

LIGAND, TARGET, OTHER, PAIR = "#D55E00", "#0072B2", "#E4E4E4", "#333333"
WITH_LIGAND = [(2, -2), (1, -1), (-1, 0), (0, 1)]
WITH_TARGET = [(1, -2), (0, 0), (1, 0), (-1, 1), (0, 2)]
"""Spots, by their two coordinates on a hexagonal grid."""
SPOTS = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if abs(a + b) <= 2]
STEPS = [(1, 0), (0, 1), (1, -1)]
"""From a spot to half of its six neighbors: every edge is met once."""


def place(spot: tuple[int, int]) -> tuple[float, float]:
    """Return the point of a spot."""
    return spot[0] + spot[1] / 2, -spot[1] * np.sqrt(0.75)


def pairs() -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the neighbors of which one has the ligand and the other the target."""
    edges = [((a, b), (a + da, b + db)) for a, b in SPOTS for da, db in STEPS]
    kinds = (set(WITH_LIGAND), set(WITH_TARGET))
    return [(x, y) for x, y in edges if any(x in k and y in o for k, o in (kinds, kinds[::-1]))]


def draw(ax: Axes, centers: list[tuple[int, int]], color: str, title: str, formula: str) -> None:
    """Draw the patch, and in each center the number of its neighbors with the other gene."""
    met = pairs()
    for a, b in SPOTS:
        for da, db in STEPS:
            if (a + da, b + db) in SPOTS:
                (x, y), (u, v) = place((a, b)), place((a + da, b + db))
                chosen = ((a, b), (a + da, b + db)) in met
                ax.plot([x, u], [y, v], "-", color=PAIR if chosen else "#D4D4D4",
                        lw=2.6 if chosen else 0.8, zorder=1 + chosen)  # fmt: skip
    counts = []
    for spot in sorted(SPOTS, key=lambda spot: (spot[1], spot[0])):  # as one reads
        shade = LIGAND if spot in WITH_LIGAND else TARGET if spot in WITH_TARGET else OTHER
        center = spot in centers
        radius = 0.40 if center else 0.27 if shade != OTHER else 0.17
        ax.add_patch(RegularPolygon(place(spot), 6, radius=radius, fc=shade, ec="white", lw=1.5,
                                    zorder=3))  # fmt: skip
        if center:
            counts.append(sum(spot in pair for pair in met))
            ax.text(*place(spot), str(counts[-1]), color="white", ha="center", va="center_baseline",
                    fontsize=11, weight="bold", zorder=4)  # fmt: skip
    ax.set_title(title, fontsize=10, linespacing=1.3)
    total = " + ".join(map(str, counts)) + f" = {sum(counts)}"
    ax.text(0.5, -0.09, formula, transform=ax.transAxes, ha="center", va="center", fontsize=13)
    ax.text(0.5, -0.24, total, transform=ax.transAxes, ha="center", va="center", fontsize=11,
            color=color)  # fmt: skip
    ax.set(aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.2, 2.2))
    ax.set_axis_off()


def main() -> None:
    """Draw both directions side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 5.1))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.36, wspace=0.02)
    draw(left, WITH_TARGET, TARGET, "ligand in the neighbors,\ntarget in the center",
         r"$\sum_i\;(W\,l)_i\;t_i$")  # fmt: skip
    draw(right, WITH_LIGAND, LIGAND, "target in the neighbors,\nligand in the center",
         r"$\sum_i\;l_i\;(W\,t)_i$")  # fmt: skip
    for height, size in ((0.63, 22), (0.312, 14)):
        figure.text(0.5, height, "=", fontsize=size, ha="center", va="center")
    handles = [
        Line2D(
            [], [], marker="h", ls="", ms=11, color=LIGAND, mec="white", label="spot with ligand"
        ),
        Line2D(
            [], [], marker="h", ls="", ms=11, color=TARGET, mec="white", label="spot with target"
        ),
        Line2D([], [], color=PAIR, lw=2.6, label="pair in both sums"),
    ]
    figure.legend(handles=handles, loc="center", bbox_to_anchor=(0.5, 0.155), ncols=3, fontsize=9,
                  frameon=False)  # fmt: skip
    figure.text(0.5, 0.025, "Both sums run over the same pairs of neighboring spots.\n"
                "So the number is the same, and one section holds no direction.",
                fontsize=9.5, ha="center", va="bottom", linespacing=1.4)  # fmt: skip
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=200)


if __name__ == "__main__":
    main()
