"""Draw how the model works: `python docs/img/how_it_works.py` writes how_it_works.svg beside it."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

BLUE, ORANGE, GREEN, SKY, PINK = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"
LIGHT, DARK, LINE = "#E3E6E8", "#222222", "#8A949C"
PITCH = 0.46


def grid(rows: int, columns: int, x: float, y: float) -> np.ndarray:
    """Centers of spots on a hexagonal grid around (x, y)."""
    places = [
        (column + row % 2 / 2, row * np.sqrt(3) / 2)
        for row in range(rows)
        for column in range(columns)
    ]
    points = np.array(places)
    return (points - points.mean(0)) * PITCH + (x, y)


def nearest(points: np.ndarray, x: float, y: float) -> np.ndarray:
    """Order of the points by their distance from (x, y)."""
    return np.argsort(np.round(np.hypot(points[:, 0] - x, points[:, 1] - y), 6), kind="stable")


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=LINE, lw=1.2)
    )


def box(ax: Axes, x: float, y: float, size: tuple[float, float], text: str, color: str) -> None:
    """Draw a box with text around (x, y)."""
    width, height = size
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height,
            boxstyle="round,pad=0.04,rounding_size=0.12", fc="white", ec=color, lw=1.4,
        )
    )  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=8, color=DARK)


def genes(ax: Axes, x: float, y: float, shades: list[float], masked: set[int], color: str) -> None:
    """Draw the counts of a spot as a row of cells; masked ones have a question mark."""
    for i, shade in enumerate(shades):
        left = x + i * 0.32
        face = "white" if i in masked else (*mpl.colors.to_rgb(color), 0.15 + 0.8 * shade)
        ax.add_patch(Rectangle((left, y - 0.17), 0.32, 0.34, fc=face, ec=LINE, lw=0.8))
        if i in masked:
            ax.text(left + 0.16, y, "?", ha="center", va="center", fontsize=8, color="#D55E00")


def draw(ax: Axes) -> None:
    """Draw the five steps from left to right."""
    heads = {
        1.5: "1  A slide",
        5.05: "2  Averages of H = X W",
        7.9: "3  Network",
        10.35: "4  Prediction",
    }
    for x, text in heads.items():
        ax.text(x, 4.75, text, ha="center", fontsize=9.5, weight="bold", color=DARK)

    # The slide: a center, its rings, and spots that are similar to it.
    points = grid(8, 7, 1.5, 2.75)
    middle = points[nearest(points, 1.5, 2.75)[0]]
    order = nearest(points, *middle)
    similar = {3, 12, 47, 51, 54}
    for i, (px, py) in enumerate(points):
        rank = int(np.flatnonzero(order == i)[0])
        color = ORANGE if rank == 0 else BLUE if rank < 7 else SKY if rank < 15 else LIGHT
        color = PINK if rank >= 15 and i in similar else color
        ax.add_patch(Circle((px, py), 0.185, fc=color, ec="none"))
    genes(ax, 0.38, 0.52, [0.9, 0, 0.3, 0.6, 0, 0.8, 0.1], {1, 4}, ORANGE)
    ax.text(1.5, 0.12, "counts X of the center, 30 % masked", ha="center", va="top", fontsize=7)

    # The operators, each an average over some spots.
    rows = [
        (ORANGE, "the center, its genes that are not masked"),
        (BLUE, "its 6 nearest neighbors"),
        (SKY, "the next 8"),
        (PINK, "similar spots of the slide"),
        (LINE, "the whole slide"),
    ]
    for i, (color, text) in enumerate(rows):
        y = 3.95 - i * 0.62
        ax.add_patch(Circle((3.75, y), 0.14, fc=color, ec="none"))
        ax.text(4.0, y, text, va="center", fontsize=7.5, color=DARK)
    ax.text(
        5.05, 0.62,
        "W: a vector per gene, learned; of H is\n"
        "subtracted what library size explains\nA: sparse averages, P = A H",
        ha="center", va="center", fontsize=7.5, color=DARK,
    )  # fmt: skip
    arrow(ax, (3.25, 2.72), (3.52, 2.72))
    arrow(ax, (6.72, 2.72), (7.18, 2.72))

    # The network; the embedding comes before it.
    box(ax, 7.9, 2.72, (1.2, 0.7), "z = MLP(P)", GREEN)
    box(ax, 7.9, 1.2, (1.3, 0.5), "embedding", BLUE)
    arrow(ax, (6.72, 2.3), (7.15, 1.5))
    ax.text(
        7.9, 0.62, "mean of H over\nthe 15 spots",
        ha="center", va="center", fontsize=7.5, color=DARK,
    )  # fmt: skip
    arrow(ax, (8.6, 2.72), (9.15, 2.72))

    # The prediction.
    ax.text(10.35, 4.05, "what similar spots have", ha="center", fontsize=7.5, color=DARK)
    genes(ax, 9.23, 3.7, [0.7, 0.3, 0.3, 0.5, 0.6, 0.6, 0.2], set(), PINK)
    ax.text(10.35, 3.25, "×  correction, decoded from z", ha="center", fontsize=7.5, color=DARK)
    genes(ax, 9.23, 2.72, [0.8, 0.5, 0.3, 0.6, 0.4, 0.7, 0.1], set(), GREEN)
    ax.text(10.35, 2.3, "=  expected log1p counts", ha="center", fontsize=7.5, color=DARK)
    genes(ax, 9.23, 1.2, [0.9, 0.6, 0.3, 0.6, 0.3, 0.8, 0.1], set(), ORANGE)
    for i in (1, 4):
        left = 9.23 + i * 0.32
        ax.add_patch(Rectangle((left, 1.03), 0.32, 0.34, fc="none", ec="#D55E00", lw=1.6))
        arrow(ax, (left + 0.16, 2.15), (left + 0.16, 1.42))
    ax.text(
        10.35, 0.62, "training: masked genes are\ncompared with their counts",
        ha="center", va="center", fontsize=7.5, color=DARK,
    )  # fmt: skip


def main() -> None:
    """Write the figure."""
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "sagefm"})
    figure, ax = plt.subplots(figsize=(9.2, 4.1))
    ax.set(xlim=(-0.25, 11.75), ylim=(-0.25, 5.05), aspect="equal")
    ax.axis("off")
    draw(ax)
    target = Path(__file__).with_suffix(".svg")
    figure.savefig(target, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})


if __name__ == "__main__":
    main()
